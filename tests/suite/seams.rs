//! Each implementation of an extension trait (journal, vault, token store, nodes) passes its conformance suite.
//!
//! Submodules test what only the PostgreSQL implementations can get wrong: writes that race with a takeover.
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
async fn journals_pass_the_conformance_suite() {
    conformance::journal(MemoryJournal::default()).await;
    conformance::journal(PgJournal::new(landlord::installed().await)).await;
}

#[tokio::test]
async fn vaults_pass_the_conformance_suite() {
    conformance::vault(MemoryVault::default()).await;
    conformance::vault(PgVault::new(landlord::installed().await, Arc::new(LocalKeyring::random()))).await;
}

#[tokio::test]
async fn vaults_pass_the_key_conformance_suite() {
    let memory = MemoryVault::default();
    conformance::vault_keys(|ring| memory.with_keys(ring)).await;
    let landlord = landlord::installed().await;
    conformance::vault_keys(|ring| PgVault::new(landlord.clone(), Arc::new(ring))).await;
}

#[tokio::test]
async fn token_stores_pass_the_conformance_suite() {
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
async fn nodes_pass_the_conformance_suite() {
    conformance::nodes(MemoryNodes::default()).await;
    conformance::nodes(PgNodes::new(landlord::installed().await)).await;
}

/// Key rotation: k1 is primary; k2 becomes primary and k1 only decrypts; `rewrap` encrypts every record with k2; k1 is
/// removed.
#[tokio::test]
async fn rewrap_moves_all_records_to_the_new_primary_key() {
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
    assert!(
        matches!(new.check_keys().await, Err(VaultError::Key(KeyError::Unknown(_)))),
        "check_keys() passed without k1, which still encrypts records"
    );
    let mut left = vec![];
    for _ in 0..3 {
        left.push(both.rewrap(2).await.unwrap());
    }
    assert_eq!(left, [3, 1, 0], "results of rewrap() in batches of two");
    for n in 1..=5 {
        assert_eq!(new.open(&id(n)).await.unwrap().expose_secret(), format!("secret {n}"));
    }
}
