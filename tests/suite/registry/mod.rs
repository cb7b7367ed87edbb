//! Tenant and server registries: the conformance suites for each implementation, and cases specific to PostgreSQL.
//!
//! Submodules: an adapter over foreign tables (`legacy`), lock races (`locks`), query plans (`plans`), values that
//! cannot be stored or read (`values`).

mod legacy;
mod locks;
mod plans;
mod values;

use crate::landlord;
use tenantry::registry::{MemoryRegistry, PgTenantRegistry};
use tenantry::testing::conformance;

#[tokio::test]
async fn memory_registry_passes_the_conformance_suites() {
    conformance::registry_writer(MemoryRegistry::new()).await;
    conformance::server_registry(MemoryRegistry::new()).await;
}

/// The pool's `search_path` leads to other tables of the same names: every statement must qualify its tables.
#[tokio::test]
async fn pg_registry_passes_the_tenant_conformance_suite() {
    const ASTRAY: &str =
        "CREATE SCHEMA astray; CREATE TABLE astray.tenants (id int); CREATE TABLE astray.epochs (id int)";
    let options = landlord::empty().await;
    let host = landlord::pool(options.clone());
    tenantry::schema::install(&host).await.unwrap();
    sqlx::raw_sql(ASTRAY).execute(&host).await.unwrap();
    let landlord = landlord::pool(options.options([("search_path", "astray")]));
    conformance::registry_writer(PgTenantRegistry::new(landlord)).await;
}

#[tokio::test]
async fn pg_registry_passes_the_server_registry_conformance_suite() {
    conformance::server_registry(PgTenantRegistry::new(landlord::installed().await)).await;
}
