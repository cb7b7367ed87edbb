//! Each seam's contract, kept by each implementation.
mod fences;
mod journal_races;

use crate::landlord;
use secrecy::ExposeSecret;
use std::sync::Arc;
use tenantry::error::{KeyError, VaultError};
use tenantry::journal::{MemoryJournal, PgJournal};
use tenantry::nodes::{MemoryNodes, PgNodes};
use tenantry::operation::{FencingToken, OperationId};
use tenantry::secret::CredentialId;
use tenantry::testing::conformance;
use tenantry::tokens::{MemoryTokenStore, PgTokenStore};
use tenantry::vault::{CredentialVault, LocalKeyring, MemoryVault, PgVault, VaultWriter};
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
async fn vaults_keep_the_contract_about_keys() {
    let memory = MemoryVault::default();
    conformance::vault_keys(|ring| memory.with_keys(ring)).await;
    let landlord = landlord::installed().await;
    conformance::vault_keys(|ring| PgVault::new(landlord.clone(), Arc::new(ring))).await;
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

/// k1 → k1 decrypts only, k2 is primary → everything wrapped anew → k1 is retired.
#[tokio::test]
async fn a_new_primary_key_replaces_the_old_one_record_by_record() {
    const K1: &str = "k1:oRqXTi4jD3PHGrDq0bR3rV4nXB6Vd1pD9yVYCyG0l3Q=";
    const K2: &str = "k2:pBqXTi4jD3PHGrDq0bR3rV4nXB6Vd1pD9yVYCyG0l3Q=";
    let landlord = landlord::installed().await;
    let vault = |text: String| PgVault::new(landlord.clone(), Arc::new(LocalKeyring::from_text(&text).unwrap()));
    let (old, both, new) = (vault(K1.into()), vault(format!("{K2},{K1}")), vault(K2.into()));
    let by = FencingToken { operation: OperationId::new(), epoch: 1 };
    old.fence(by.operation, 1).await.unwrap();
    let id = |n: i64| {
        let login = "t_acme_v1".parse().unwrap();
        CredentialId::login(TenantId::from_uuid(sqlx::types::Uuid::from_u128(7)), &"t_acme".parse().unwrap(), &login, n)
    };
    for n in 1..=5 {
        old.put(&id(n), &format!("secret {n}").into(), by).await.unwrap();
    }
    assert!(matches!(new.check_keys().await, Err(VaultError::Key(KeyError::Unknown(_)))), "k1 is still needed");
    let mut left = vec![];
    for _ in 0..3 {
        left.push(both.rewrap(2).await.unwrap());
    }
    assert_eq!(left, [3, 1, 0], "in batches, until none is left");
    for n in 1..=5 {
        assert_eq!(new.open(&id(n)).await.unwrap().expose_secret(), format!("secret {n}"));
    }
}
