//! The conformance suites, run; and what only Postgres can get wrong.

mod legacy;
mod locks;
mod plans;
mod values;

use crate::landlord;
use tenantry::registry::{MemoryRegistry, PgTenantRegistry};
use tenantry::testing::conformance;

#[tokio::test]
async fn memory_keeps_the_contract() {
    conformance::registry_writer(MemoryRegistry::new()).await;
    conformance::server_registry(MemoryRegistry::new()).await;
}

/// Also under a search path that leads to other tables of the same names.
#[tokio::test]
async fn postgres_keeps_the_contract_of_tenants() {
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
async fn postgres_keeps_the_contract_of_servers() {
    conformance::server_registry(PgTenantRegistry::new(landlord::installed().await)).await;
}
