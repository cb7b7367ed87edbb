//! [`RegistryWriter`]: rows of logins, and the retirement of replaced logins.
use super::subject::{Subject, create_token};
use crate::directory::{DatabaseUser, UserStatus};
use crate::error::StoreError;
use crate::operation::FencingToken;
use crate::store::registry::{RegistryWriter, Retirement};
use crate::testing::conformance::assertions::{expect_conflict, expect_ok, expect_winners};
use futures_util::future::join_all;
use std::time::Duration;

pub(super) async fn check(registry: &impl RegistryWriter) {
    use UserStatus::*;
    let by = create_token(registry).await;
    let subject = Subject::create_active(registry, by).await;
    for generation in [3, 2] {
        expect_ok(registry.put_user(None, &subject.user(generation), by).await, "put_user() adds a login");
    }
    let stored = subject.snapshot(registry).await;
    let logins = [(1, Active), (2, Pending), (3, Pending)];
    assert_eq!(stored.logins(), logins, "expected: users() lists all logins, oldest generation first");
    assert_eq!(stored.users[2], subject.user(3), "expected: users() returns a login as it was put");

    let named = DatabaseUser { reason: Some("by hand".into()), ..subject.user(2) };
    expect_conflict(
        registry.put_user(None, &named, by).await,
        "put_user() that adds a login with a different stored row",
    );
    expect_conflict(registry.put_user(Some(Active), &named, by).await, "put_user() that expects another status");
    let second = registry.put_user(Some(Pending), &subject.user(2).with_status(Active), by).await;
    expect_conflict(second, "put_user() of a second active login");
    let absent = registry.put_user(Some(Pending), &subject.user(9), by).await;
    expect_conflict(absent, "put_user() that replaces an absent login");
    let stranger = Subject::new();
    expect_conflict(registry.put_user(None, &stranger.user(1), by).await, "put_user() of an unknown tenant's login");
    let other = Subject::create_active(registry, by).await;
    let stolen = DatabaseUser { tenant: other.id(), ..subject.user(2) };
    expect_conflict(registry.put_user(None, &stolen, by).await, "put_user() that adds another tenant's login");
    let replaced = registry.put_user(Some(Pending), &stolen, by).await;
    expect_conflict(replaced, "put_user() that gives a login to another tenant");
    let after = subject.snapshot(registry).await;
    assert_eq!(after, stored, "expected: a refused put_user() changes nothing (left: actual, right: before)");

    check_changes(registry, &subject, by).await;
    check_retirements(registry, by).await;
}

/// A login changes from a status to another one, and only one of two concurrent changes takes effect.
async fn check_changes(registry: &impl RegistryWriter, subject: &Subject, by: FencingToken) {
    use UserStatus::*;
    for (was, becomes) in [(Pending, Dropped), (Dropped, Retiring), (Retiring, Dropped)] {
        let user = DatabaseUser { reason: Some(format!("was {was}")), ..subject.user(2).with_status(becomes) };
        let changed = registry.put_user(Some(was), &user, by).await;
        expect_ok(changed, &format!("put_user() changes a login from {was} to {becomes}"));
        let users = expect_ok(registry.users(subject.id()).await, "users() lists logins");
        let is_stored = users.contains(&user);
        assert!(is_stored, "expected: users() returns a login with its reason, also a dropped one; got: {users:?}");
    }

    let changes: Vec<_> = [Retiring, Dropped].map(|status| subject.user(3).with_status(status)).into();
    let answers = join_all(changes.iter().map(|change| registry.put_user(Some(Pending), change, by))).await;
    let is_conflict = |e: &StoreError| matches!(e, StoreError::Conflict(_));
    expect_winners(answers, 1, is_conflict, "only one of two concurrent changes of one login takes effect");
}

const HOLD: Duration = Duration::from_secs(3600);

/// Only one node at a time gets a retiring login, and the login stays in the list until it is dropped.
async fn check_retirements(registry: &impl RegistryWriter, by: FencingToken) {
    use UserStatus::*;
    let subject = Subject::create_active(registry, by).await;
    let retired = subject.user(7).with_status(Retiring);
    expect_ok(registry.put_user(None, &subject.user(7), by).await, "put_user() adds a login");
    expect_ok(registry.put_user(Some(Pending), &retired, by).await, "put_user() retires a login");
    let listed = own(&subject, expect_ok(registry.retiring(1000).await, "retiring() lists logins").readable);
    assert_eq!(listed.len(), 1, "expected: retiring() lists a retiring login once; got: {listed:?}");
    let paged = page_retiring(registry).await;
    assert!(own(&subject, paged) == listed, "expected: the pages of retiring_after() have each retiring login once");
    let actual = (&listed[0].user, listed[0].attempts);
    assert_eq!(actual, (&retired, 0), "expected: retiring() returns the login as it is stored, with no attempt");
    let rule = "expected: a retirement names the operation that retired the login, and the login's former status";
    assert_eq!((listed[0].by, listed[0].before), (Some(by.operation), Some(Pending)), "{rule}");

    let takers = join_all((0..4).map(|_| take(registry, &subject))).await;
    let taken: Vec<_> = takers.into_iter().flatten().collect();
    assert_eq!(taken.len(), 1, "expected: only one of four concurrent takers gets the login; got: {taken:?}");

    check_settling(registry, &subject, &retired, by).await;
    check_scheduled(registry, by).await;
}

/// A login that is stored with the time of its drop is due then, and not before.
async fn check_scheduled(registry: &impl RegistryWriter, by: FencingToken) {
    use UserStatus::*;
    let subject = Subject::create_active(registry, by).await;
    let reason = Some(String::from("for an hour"));
    let later = DatabaseUser { reason: reason.clone(), ..subject.user(8).with_status(Retiring) };
    expect_ok(registry.put_retiring(&later, HOLD, by).await, "put_retiring() adds a login");
    expect_ok(registry.put_retiring(&later, HOLD, by).await, "put_retiring() may be repeated");
    let listed = own(&subject, expect_ok(registry.retiring(1000).await, "retiring() lists logins").readable);
    let found = listed.first().map(|found| (&found.user, found.retry_at.is_some()));
    assert_eq!(found, Some((&later, true)), "expected: retiring() lists a login of put_retiring() with its time");
    let none = take(registry, &subject).await;
    assert!(none.is_empty(), "expected: a login of put_retiring() is not due before its time; got: {none:?}");

    let now = DatabaseUser { reason, ..subject.user(9).with_status(Retiring) };
    expect_ok(registry.put_retiring(&now, Duration::ZERO, by).await, "put_retiring() adds a login that is due");
    let due: Vec<_> = take(registry, &subject).await.into_iter().map(|found| found.user).collect();
    assert_eq!(due, std::slice::from_ref(&now), "expected: only the login whose time has come is due");
    let other = DatabaseUser { reason: None, ..now };
    expect_conflict(
        registry.put_retiring(&other, HOLD, by).await,
        "put_retiring() of a login that is stored otherwise",
    );
    let stranger = Subject::new().user(1).with_status(Retiring);
    let refused = registry.put_retiring(&stranger, HOLD, by).await;
    expect_conflict(refused, "put_retiring() of an unknown tenant's login");
}

/// Those of the retirements that are of this tenant.
/// All retiring logins, read in pages of one.
async fn page_retiring(registry: &impl RegistryWriter) -> Vec<Retirement> {
    let mut all: Vec<Retirement> = vec![];
    loop {
        let after = all.last().map(|last| (&last.user.server, &last.user.role));
        let page = expect_ok(registry.retiring_after(after, 1).await, "retiring_after() returns a page").readable;
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

fn own(subject: &Subject, found: Vec<Retirement>) -> Vec<Retirement> {
    found.into_iter().filter(|r| r.user.tenant == subject.id()).collect()
}

async fn take(registry: &impl RegistryWriter, subject: &Subject) -> Vec<Retirement> {
    let taken = registry.take_retirements(1000, HOLD).await;
    own(subject, expect_ok(taken, "take_retirements() returns logins").readable)
}

/// A failed attempt delays the next one, and a dropped login leaves the list for good.
async fn check_settling(registry: &impl RegistryWriter, subject: &Subject, retired: &DatabaseUser, by: FencingToken) {
    let now = Some(("a grant elsewhere", Duration::ZERO));
    let settled = registry.settle_retirement(retired, now, None).await;
    expect_ok(settled, "settle_retirement() records a failed attempt");
    let again = take(registry, subject).await;
    let attempt = again.first().map(|r| (r.user.reason.as_deref(), r.attempts));
    let expected = Some((Some("a grant elsewhere"), 1));
    assert_eq!(attempt, expected, "expected: after the delay the login is due again, with reason and attempts");
    let later = Some(("still", HOLD));
    let settled = registry.settle_retirement(retired, later, Some(by)).await;
    expect_ok(settled, "settle_retirement() records a failed attempt with a long delay");
    let none = take(registry, subject).await;
    assert!(none.is_empty(), "expected: a login is not due before its delay has passed; got: {none:?}");

    let settled = registry.settle_retirement(retired, None, None).await;
    expect_ok(settled, "settle_retirement() records that the login is dropped");
    let settled = registry.settle_retirement(retired, later, None).await;
    expect_ok(settled, "settle_retirement() of a dropped login is no error");
    let users = expect_ok(registry.users(subject.id()).await, "users() lists logins");
    let status = users.iter().find(|u| u.role == retired.role).map(|u| u.status);
    assert_eq!(status, Some(UserStatus::Dropped), "expected: settle_retirement() does not change a dropped login");
}
