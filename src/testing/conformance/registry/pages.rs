//! [`RegistryWriter`]: the tenants that it wrote pass the checks of [`TenantRegistry`](super::TenantRegistry).
use super::read;
use super::subject::{Subject, create_token};
use crate::store::registry::RegistryWriter;
use crate::tenant::{Tenant, TenantStatus};
use crate::testing::conformance::assertions::expect_ok;

/// Creates a tenant of each status, and checks reading with them.
pub(super) async fn check(registry: &impl RegistryWriter) {
    let by = create_token(registry).await;
    let mut seeded = Vec::new();
    for status in TenantStatus::ALL {
        seeded.push(Subject::create_in_status(registry, status, by).await.tenant);
    }
    let before = seeded[0].id();
    read::check(registry, &seeded).await;

    let page = expect_ok(registry.page(Some(before), 100).await, "page() lists tenants");
    let alive: Vec<_> = seeded[1..].iter().filter(|t| t.status() != TenantStatus::Deleted).map(Tenant::id).collect();
    let page: Vec<_> = page.iter().map(Tenant::id).collect();
    assert_eq!(page, alive, "expected: page() begins after the given id (left: actual, right: expected)");
}
