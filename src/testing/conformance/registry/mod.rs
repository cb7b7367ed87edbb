//! The conformance suites of [`TenantRegistry`], [`RegistryWriter`] and [`ServerRegistry`].
//!
//! Each submodule checks one part of the contract, alone and with concurrent calls. [`subject`] creates the tenants and
//! servers that the checks use.
use crate::store::registry::{RegistryWriter, ServerRegistry, TenantRegistry};
use crate::tenant::Tenant;

mod databases;
mod domains;
mod fencing;
mod pages;
mod placements;
mod publish;
mod read;
mod servers;
mod subject;
mod tenants;
mod users;

/// Checks reading, for adapters over an application's own tables. `seeded` are tenants that the registry contains, in
/// any order and of any status. It may contain others too; the suite reads every page, so there should not be many.
///
/// ```
/// # async fn example() {
/// use tenantry::registry::MemoryRegistry;
/// tenantry::testing::conformance::registry(MemoryRegistry::new(), &[]).await;
/// # }
/// ```
///
/// # Panics
/// If the implementation breaks the contract of [`TenantRegistry`]. The message names the rule.
pub async fn registry(registry: impl TenantRegistry, seeded: &[Tenant]) {
    read::check(&registry, seeded).await;
}

/// Checks writing, with single and with concurrent calls.
///
/// ```
/// # async fn example() {
/// use tenantry::registry::MemoryRegistry;
/// tenantry::testing::conformance::registry_writer(MemoryRegistry::new()).await;
/// # }
/// ```
///
/// # Panics
/// If the implementation breaks the contract of [`RegistryWriter`]. The message names the rule.
pub async fn registry_writer(registry: impl RegistryWriter) {
    fencing::check_writes(&registry).await;
    tenants::check(&registry).await;
    publish::check(&registry).await;
    domains::check(&registry).await;
    databases::check(&registry).await;
    users::check(&registry).await;
    pages::check(&registry).await;
}

/// Checks servers and placements, with single and with concurrent calls.
///
/// # Panics
/// If the implementation breaks the contract of [`ServerRegistry`]. The message names the rule.
pub async fn server_registry(registry: impl ServerRegistry) {
    fencing::check_server_writes(&registry).await;
    servers::check(&registry).await;
    placements::check(&registry).await;
}
