use super::subject::{Subject, writer};
use crate::database::{DatabaseUser, UserStatus};
use crate::error::StoreError;
use crate::registry::RegistryWriter;
use crate::testing::conformance::answer::{conflict, done, race};
use futures_util::future::join_all;

pub(super) async fn check(registry: &impl RegistryWriter) {
    use UserStatus::*;
    let by = writer(registry).await;
    let subject = Subject::published(registry, by).await;
    for generation in [3, 2] {
        done(registry.put_user(None, &subject.user(generation), by).await, "a login is added");
    }
    let seen = subject.seen(registry).await;
    let logins = [(1, Active), (2, Pending), (3, Pending)];
    assert_eq!(seen.logins(), logins, "promised: users are listed, oldest generation first");
    assert_eq!(seen.users[2], subject.user(3), "promised: a user reads back as it was put");

    let named = DatabaseUser { reason: Some("by hand".into()), ..subject.user(2) };
    conflict(registry.put_user(None, &named, by).await, "adding a login that is there and is another one");
    conflict(registry.put_user(Some(Active), &named, by).await, "a login that is not in the expected status");
    conflict(registry.put_user(Some(Pending), &subject.user(2).with_status(Active), by).await, "a second active login");
    conflict(registry.put_user(Some(Pending), &subject.user(9), by).await, "replacing a login that is not there");
    let stranger = Subject::new();
    conflict(registry.put_user(None, &stranger.user(1), by).await, "a login of nobody");
    let other = Subject::published(registry, by).await;
    let stolen = DatabaseUser { tenant: other.id(), ..subject.user(2) };
    conflict(registry.put_user(None, &stolen, by).await, "adding another tenant's login");
    conflict(registry.put_user(Some(Pending), &stolen, by).await, "taking another tenant's login");
    let after = subject.seen(registry).await;
    assert_eq!(after, seen, "promised: a login that is refused changes nothing (left: seen, right: before)");

    for (was, becomes) in [(Pending, Dropped), (Dropped, Retiring), (Retiring, Dropped)] {
        let user = DatabaseUser { reason: Some(format!("was {was}")), ..subject.user(2).with_status(becomes) };
        done(registry.put_user(Some(was), &user, by).await, &format!("a login that is {was} becomes {becomes}"));
        let users = done(registry.users(subject.id()).await, "users are listed");
        assert!(users.contains(&user), "promised: a user reads back with its reason, dropped or not; seen: {users:?}");
    }

    let wishes: Vec<_> = [Retiring, Dropped].map(|status| subject.user(3).with_status(status)).into();
    let answers = join_all(wishes.iter().map(|wish| registry.put_user(Some(Pending), wish, by))).await;
    let is_conflict = |e: &StoreError| matches!(e, StoreError::Conflict(_));
    race(answers, 1, is_conflict, "of two changes of one login one takes place");
}
