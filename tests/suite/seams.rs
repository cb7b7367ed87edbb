//! Each seam's contract, kept by each implementation.
mod fences;
mod journal_races;

use crate::landlord;
use std::sync::Arc;
use tenantry::nodes::{MemoryNodes, PgNodes};
use tenantry::saga::{MemoryJournal, PgJournal};
use tenantry::testing::conformance;
use tenantry::tokens::{MemoryTokenStore, PgTokenStore};
use tenantry::vault::{LocalKeyring, MemoryVault, PgVault};
use tenantry::{TenantId, sqlx};

#[tokio::test]
async fn journals_keep_the_contract() {
    conformance::journal(MemoryJournal::default()).await;
    conformance::journal(PgJournal::new(landlord::installed().await)).await;
}

#[tokio::test]
async fn vaults_keep_the_contract() {
    conformance::vault(MemoryVault::default()).await;
    conformance::vault(PgVault::new(landlord::installed().await, Arc::new(LocalKeyring::random()))).await;
}

#[tokio::test]
async fn token_stores_keep_the_contract() {
    conformance::token_store(MemoryTokenStore::default(), TenantId::new()).await;
    let (landlord, tenant) = (landlord::installed().await, TenantId::new());
    sqlx::query("INSERT INTO tenantry.tenants (id, slug, name, status) VALUES ($1, 'acme', 'Acme', 'active')")
        .bind(tenant.as_uuid())
        .execute(&landlord)
        .await
        .unwrap();
    conformance::token_store(PgTokenStore::new(landlord), tenant).await;
}

#[tokio::test]
async fn heartbeats_keep_the_contract() {
    conformance::nodes(MemoryNodes::default()).await;
    conformance::nodes(PgNodes::new(landlord::installed().await)).await;
}
