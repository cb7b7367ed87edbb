use super::read;
use super::subject::{Subject, fencing_token};
use crate::store::registry::RegistryWriter;
use crate::tenant::{Tenant, TenantStatus};
use crate::testing::conformance::assertions::expect_ok;

/// A tenant of each status is found and listed as the reading half promises.
pub(super) async fn check(registry: &impl RegistryWriter) {
    let by = fencing_token(registry).await;
    let mut seeded = Vec::new();
    for status in TenantStatus::ALL {
        seeded.push(Subject::in_status(registry, status, by).await.tenant);
    }
    let before = seeded[0].id();
    read::check(registry, &seeded).await;

    let page = expect_ok(registry.page(Some(before), 100).await, "a page is read");
    let alive: Vec<_> = seeded[1..].iter().filter(|t| t.status() != TenantStatus::Deleted).map(Tenant::id).collect();
    let page: Vec<_> = page.iter().map(Tenant::id).collect();
    assert_eq!(page, alive, "expected: a page begins after the id that is named (left: actual, right: expected)");
}
