//! [`RegistryWriter::publish`]: entry, login and status change in one write, or not at all.
use super::subject::{Subject, create_token};
use crate::directory::{DatabaseStatus, TenantDatabase, UserStatus};
use crate::operation::FencingToken;
use crate::store::registry::RegistryWriter;
use crate::tenant::TenantStatus;
use crate::testing::conformance::assertions::{expect_conflict, expect_ok, expect_winners};
use futures_util::future::join_all;

pub(super) async fn check(registry: &impl RegistryWriter) {
    let by = create_token(registry).await;
    check_effects(registry, by).await;
    check_refusals(registry, by).await;
    check_each_status(registry, by).await;
    check_concurrent_publish(registry, by).await;
}

async fn check_effects(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::create_active(registry, by).await;
    let stored = subject.snapshot(registry).await;
    assert_eq!(stored.tenant.as_ref(), Some(&subject.tenant), "expected: publish() makes the tenant active");
    let entries = std::slice::from_ref(&subject.entry);
    assert_eq!(stored.databases, entries, "expected: publish() stores the given entry");
    assert_eq!(stored.logins(), [(1, UserStatus::Active)], "expected: publish() makes the entry's login active");

    let external = Subject::create_provisioning(registry, by).await;
    let entry = TenantDatabase { server: None, ..external.entry.clone() };
    let published = registry.publish(TenantStatus::Provisioning, &entry, by).await;
    expect_ok(published, "publish() of an entry without a registered server needs no login among the tenant's users");
    let databases = external.snapshot(registry).await.databases;
    assert_eq!(databases, [entry], "expected: publish() stores an entry without a registered server");
}

async fn check_refusals(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::create_provisioning(registry, by).await;
    let before = subject.snapshot(registry).await;
    let suspended = registry.publish(TenantStatus::Suspended, &subject.entry, by).await;
    expect_conflict(suspended, "publish() from a status that the tenant does not have");
    let unknown = registry.publish(TenantStatus::Provisioning, &subject.rotated(7), by).await;
    expect_conflict(unknown, "publish() of a login that is not among the tenant's users");
    let dropped = TenantDatabase { status: DatabaseStatus::Dropped, ..subject.entry.clone() };
    let dropped = registry.publish(TenantStatus::Provisioning, &dropped, by).await;
    expect_conflict(dropped, "publish() of a dropped entry");
    let unknown = registry.publish(TenantStatus::Provisioning, &Subject::new().entry, by).await;
    expect_conflict(unknown, "publish() of an unknown tenant's entry");
    let stored = subject.snapshot(registry).await;
    assert_eq!(stored, before, "expected: a refused publish() changes nothing (left: actual, right: before)");
}

async fn check_each_status(registry: &impl RegistryWriter, by: FencingToken) {
    for status in TenantStatus::ALL {
        let subject = Subject::create_in_status(registry, status, by).await;
        let before = subject.snapshot(registry).await;
        let answer = registry.publish(status, &subject.entry, by).await;
        if status == TenantStatus::Active || status.can_become(TenantStatus::Active) {
            expect_ok(answer, &format!("publish() of a tenant that is {status} succeeds"));
            let stored = subject.snapshot(registry).await.tenant.map(|t| t.status());
            assert_eq!(stored, Some(TenantStatus::Active), "expected: publish() makes the tenant active");
        } else {
            expect_conflict(answer, &format!("publish() of a tenant that is {status}"));
            assert_eq!(subject.snapshot(registry).await, before, "expected: a refused publish() changes nothing");
        }
    }
}

async fn check_concurrent_publish(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::create_provisioning(registry, by).await;
    let publish = || registry.publish(TenantStatus::Provisioning, &subject.entry, by);
    let answers = join_all((0..10).map(|_| publish())).await;
    expect_winners(answers, 10, |_| false, "concurrent calls of publish() with one entry all succeed");

    let subject = Subject::create_provisioning(registry, by).await;
    let discard = registry.discard(subject.id(), by);
    let publish = registry.publish(TenantStatus::Provisioning, &subject.entry, by);
    let (discarded, published) = futures_util::future::join(discard, publish).await;
    let won = u8::from(discarded.is_ok()) + u8::from(published.is_ok());
    let rule = "expected: of concurrent publish() and discard() exactly one succeeds";
    assert_eq!(won, 1, "{rule}; got: {published:?} and {discarded:?}");
    let status = subject.snapshot(registry).await.tenant.map(|t| t.status());
    let expected = published.is_ok().then_some(TenantStatus::Active);
    assert_eq!(status, expected, "expected: the registry contains the result of the call that succeeded");
}
