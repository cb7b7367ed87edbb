//! [`TenantRegistry`], [`RegistryWriter`] and [`ServerRegistry`].
use crate::store::registry::{RegistryWriter, ServerRegistry, TenantRegistry};
use crate::tenant::Tenant;

mod databases;
mod domains;
mod fencing;
mod pages;
mod places;
mod publish;
mod read;
mod servers;
mod subject;
mod tenants;
mod users;

/// Reading: for adapters over a host's own tables. `seeded` are tenants that stand there, in any order and of any
/// status; others may stand there too, but each page is read, so better not many.
///
/// ```
/// # async fn example() {
/// use tenantry::registry::MemoryRegistry;
/// tenantry::testing::conformance::registry(MemoryRegistry::new(), &[]).await;
/// # }
/// ```
///
/// # Panics
/// When a promise of [`TenantRegistry`] is broken.
pub async fn registry(registry: impl TenantRegistry, seeded: &[Tenant]) {
    read::check(&registry, seeded).await;
}

/// Writing, alone and in races.
///
/// ```
/// # async fn example() {
/// use tenantry::registry::MemoryRegistry;
/// tenantry::testing::conformance::registry_writer(MemoryRegistry::new()).await;
/// # }
/// ```
///
/// # Panics
/// When a promise of [`RegistryWriter`] is broken.
pub async fn registry_writer(registry: impl RegistryWriter) {
    fencing::writes(&registry).await;
    tenants::check(&registry).await;
    publish::check(&registry).await;
    domains::check(&registry).await;
    databases::check(&registry).await;
    users::check(&registry).await;
    pages::check(&registry).await;
}

/// Servers and places, alone and in races.
///
/// # Panics
/// When a promise of [`ServerRegistry`] is broken.
pub async fn server_registry(registry: impl ServerRegistry) {
    fencing::server_writes(&registry).await;
    servers::check(&registry).await;
    places::check(&registry).await;
}
