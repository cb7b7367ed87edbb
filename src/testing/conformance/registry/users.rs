use super::subject::{Subject, fencing_token};
use crate::directory::{DatabaseUser, UserStatus};
use crate::error::StoreError;
use crate::operation::FencingToken;
use crate::store::registry::{RegistryWriter, Retirement};
use crate::testing::conformance::assertions::{expect_conflict, expect_ok, expect_winners};
use futures_util::future::join_all;
use std::time::Duration;

pub(super) async fn check(registry: &impl RegistryWriter) {
    use UserStatus::*;
    let by = fencing_token(registry).await;
    let subject = Subject::published(registry, by).await;
    for generation in [3, 2] {
        expect_ok(registry.put_user(None, &subject.user(generation), by).await, "a login is added");
    }
    let seen = subject.seen(registry).await;
    let logins = [(1, Active), (2, Pending), (3, Pending)];
    assert_eq!(seen.logins(), logins, "expected: users are listed, oldest generation first");
    assert_eq!(seen.users[2], subject.user(3), "expected: a user reads back as it was put");

    let named = DatabaseUser { reason: Some("by hand".into()), ..subject.user(2) };
    expect_conflict(registry.put_user(None, &named, by).await, "adding a login that is there and is another one");
    expect_conflict(registry.put_user(Some(Active), &named, by).await, "a login that is not in the expected status");
    expect_conflict(registry.put_user(Some(Pending), &subject.user(2).with_status(Active), by).await, "a second active login");
    expect_conflict(registry.put_user(Some(Pending), &subject.user(9), by).await, "replacing a login that is not there");
    let stranger = Subject::new();
    expect_conflict(registry.put_user(None, &stranger.user(1), by).await, "a login of nobody");
    let other = Subject::published(registry, by).await;
    let stolen = DatabaseUser { tenant: other.id(), ..subject.user(2) };
    expect_conflict(registry.put_user(None, &stolen, by).await, "adding another tenant's login");
    expect_conflict(registry.put_user(Some(Pending), &stolen, by).await, "taking another tenant's login");
    let after = subject.seen(registry).await;
    assert_eq!(after, seen, "expected: a login that is refused changes nothing (left: actual, right: before)");

    for (was, becomes) in [(Pending, Dropped), (Dropped, Retiring), (Retiring, Dropped)] {
        let user = DatabaseUser { reason: Some(format!("was {was}")), ..subject.user(2).with_status(becomes) };
        expect_ok(registry.put_user(Some(was), &user, by).await, &format!("a login that is {was} becomes {becomes}"));
        let users = expect_ok(registry.users(subject.id()).await, "users are listed");
        assert!(users.contains(&user), "expected: a user reads back with its reason, dropped or not; got: {users:?}");
    }

    let wishes: Vec<_> = [Retiring, Dropped].map(|status| subject.user(3).with_status(status)).into();
    let answers = join_all(wishes.iter().map(|wish| registry.put_user(Some(Pending), wish, by))).await;
    let is_conflict = |e: &StoreError| matches!(e, StoreError::Conflict(_));
    expect_winners(answers, 1, is_conflict, "of two changes of one login one takes place");
    retirements(registry, by).await;
}

const HOLD: Duration = Duration::from_secs(3600);

/// A login that waits to be dropped is taken by one node at a time, and is kept until it is gone.
async fn retirements(registry: &impl RegistryWriter, by: FencingToken) {
    use UserStatus::*;
    let subject = Subject::published(registry, by).await;
    let of = |found: Vec<Retirement>| found.into_iter().filter(|r| r.user.tenant == subject.id()).collect::<Vec<_>>();
    let retired = subject.user(7).with_status(Retiring);
    expect_ok(registry.put_user(None, &subject.user(7), by).await, "a login is added");
    expect_ok(registry.put_user(Some(Pending), &retired, by).await, "a login is retired by hand");
    let listed = of(expect_ok(registry.retiring(1000).await, "retirements are listed"));
    assert_eq!(listed.len(), 1, "expected: a retiring login is listed; got: {listed:?}");
    assert_eq!((&listed[0].user, listed[0].attempts), (&retired, 0), "expected: it is listed as it stands");
    let told = (listed[0].by, listed[0].before);
    assert_eq!(
        told,
        (Some(by.operation), Some(Pending)),
        "expected: it tells who has retired it, and what it was before"
    );

    let takers = join_all((0..4).map(|_| registry.take_retirements(1000, HOLD))).await;
    let taken: Vec<_> = takers.into_iter().flat_map(|found| of(expect_ok(found, "a retirement is taken"))).collect();
    assert_eq!(taken.len(), 1, "expected: one of several takers gets it; got: {taken:?}");

    let soon = Some(("a grant elsewhere", Duration::ZERO));
    expect_ok(registry.settle_retirement(&retired, soon, None).await, "it is left for now");
    let again = of(expect_ok(registry.take_retirements(1000, HOLD).await, "a retirement is taken"));
    let why = again.first().map(|r| (r.user.reason.as_deref(), r.attempts));
    assert_eq!(why, Some((Some("a grant elsewhere"), 1)), "expected: it is due again, with the reason and the count");
    let late = Some(("still", HOLD));
    expect_ok(registry.settle_retirement(&retired, late, Some(by)).await, "it is left for longer");
    let none = of(expect_ok(registry.take_retirements(1000, HOLD).await, "a retirement is taken"));
    assert!(none.is_empty(), "expected: not before its time; got: {none:?}");

    expect_ok(registry.settle_retirement(&retired, None, None).await, "it is gone");
    expect_ok(registry.settle_retirement(&retired, late, None).await, "one that is gone is settled once more");
    let users = expect_ok(registry.users(subject.id()).await, "users are listed");
    let status = users.iter().find(|u| u.role == retired.role).map(|u| u.status);
    assert_eq!(status, Some(Dropped), "expected: what is gone stays gone");
}
