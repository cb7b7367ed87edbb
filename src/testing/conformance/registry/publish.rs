use super::subject::{Subject, fencing_token};
use crate::directory::{DatabaseStatus, TenantDatabase, UserStatus};
use crate::operation::FencingToken;
use crate::store::registry::RegistryWriter;
use crate::tenant::TenantStatus;
use crate::testing::conformance::assertions::{expect_conflict, expect_ok, expect_winners};
use futures_util::future::join_all;

pub(super) async fn check(registry: &impl RegistryWriter) {
    let by = fencing_token(registry).await;
    all_in_one(registry, by).await;
    nothing_at_all(registry, by).await;
    from_each_status(registry, by).await;
    racing(registry, by).await;
}

async fn all_in_one(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::published(registry, by).await;
    let seen = subject.seen(registry).await;
    assert_eq!(seen.tenant.as_ref(), Some(&subject.tenant), "expected: publishing makes a tenant active");
    assert_eq!(
        seen.databases,
        std::slice::from_ref(&subject.entry),
        "expected: publishing writes the entry as it is given"
    );
    assert_eq!(seen.logins(), [(1, UserStatus::Active)], "expected: publishing makes the entry's login active");

    let pointed = Subject::created(registry, by).await;
    let entry = TenantDatabase { server: None, ..pointed.entry.clone() };
    expect_ok(
        registry.publish(TenantStatus::Provisioning, &entry, by).await,
        "an entry on nobody's server needs no login among the users",
    );
    assert_eq!(pointed.seen(registry).await.databases, [entry], "expected: the entry reads back");
}

async fn nothing_at_all(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::created(registry, by).await;
    let before = subject.seen(registry).await;
    let suspended = registry.publish(TenantStatus::Suspended, &subject.entry, by).await;
    expect_conflict(suspended, "publishing from a status that the tenant is not in");
    let unknown = registry.publish(TenantStatus::Provisioning, &subject.rotated(7), by).await;
    expect_conflict(unknown, "publishing a login that is not among the tenant's users");
    let dropped = TenantDatabase { status: DatabaseStatus::Dropped, ..subject.entry.clone() };
    expect_conflict(registry.publish(TenantStatus::Provisioning, &dropped, by).await, "publishing a dropped entry");
    expect_conflict(
        registry.publish(TenantStatus::Provisioning, &Subject::new().entry, by).await,
        "publishing an entry of nobody",
    );
    let seen = subject.seen(registry).await;
    assert_eq!(seen, before, "expected: publishing is all or nothing (left: actual, right: before)");
}

async fn from_each_status(registry: &impl RegistryWriter, by: FencingToken) {
    for status in TenantStatus::ALL {
        let subject = Subject::in_status(registry, status, by).await;
        let before = subject.seen(registry).await;
        let answer = registry.publish(status, &subject.entry, by).await;
        if status == TenantStatus::Active || status.can_become(TenantStatus::Active) {
            expect_ok(answer, &format!("a tenant that is {status} is published"));
            let seen = subject.seen(registry).await.tenant.map(|t| t.status());
            assert_eq!(seen, Some(TenantStatus::Active), "expected: publishing makes a tenant active");
        } else {
            expect_conflict(answer, &format!("publishing a tenant that is {status}"));
            assert_eq!(subject.seen(registry).await, before, "expected: publishing is all or nothing");
        }
    }
}

async fn racing(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::created(registry, by).await;
    let publish = || registry.publish(TenantStatus::Provisioning, &subject.entry, by);
    expect_winners(join_all((0..10).map(|_| publish())).await, 10, |_| false, "ten publications of one entry are one");

    let subject = Subject::created(registry, by).await;
    let discard = registry.discard(subject.id(), by);
    let publish = registry.publish(TenantStatus::Provisioning, &subject.entry, by);
    let (discarded, published) = futures_util::future::join(discard, publish).await;
    let won = u8::from(discarded.is_ok()) + u8::from(published.is_ok());
    assert_eq!(won, 1, "expected: a tenant is published or discarded; got: {published:?} and {discarded:?}");
    let status = subject.seen(registry).await.tenant.map(|t| t.status());
    let expected = published.is_ok().then_some(TenantStatus::Active);
    assert_eq!(status, expected, "expected: what succeeded is what stands there");
}
