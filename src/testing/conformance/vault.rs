//! The conformance suite of [`VaultWriter`]: storing, opening and deleting secrets, and fencing.
//!
//! The suite [`vault_keys`](super::vault_keys()) checks which keys a vault accepts.
use super::assertions::expect_ok;
use crate::error::{StoreError, VaultError};
use crate::operation::{FencingToken, OperationId};
use crate::secret::{CredentialId, Purpose, SecretOwner};
use crate::store::vault::VaultWriter;
use crate::tenant::TenantId;
use secrecy::{ExposeSecret, SecretString};

/// Checks a [`VaultWriter`]. The vault must be empty, and its provider must have one key.
///
/// # Panics
/// If the implementation breaks the contract of [`VaultWriter`]. The message names the rule.
pub async fn vault(vault: impl VaultWriter) {
    let by = FencingToken { operation: OperationId::new(), epoch: 2 };
    let (id, secret) = (login(TenantId::new(), 1), SecretString::from("p@ss/w?rd:1#%"));
    let unfenced = vault.put(&id, &secret, by).await;
    assert!(is_fenced(&unfenced), "expected: put() by an operation that never called fence() is Fenced; {unfenced:?}");
    expect_ok(vault.fence(by.operation, by.epoch).await, "fence() stores an epoch");
    let missing = vault.open(&id).await;
    assert!(is_missing(&missing), "expected: open() of an id without a secret is Missing; got: {missing:?}");

    expect_ok(vault.put(&id, &secret, by).await, "put() stores a secret");
    let again = expect_ok(vault.put(&id, &SecretString::from("another"), by).await, "put() can be repeated");
    let rule = "expected: a repeated put() returns the first secret and changes nothing";
    assert_eq!(again.expose_secret(), secret.expose_secret(), "{rule}");
    let opened = expect_ok(vault.open(&id).await, "open() returns a stored secret");
    assert_eq!(
        opened.expose_secret(),
        secret.expose_secret(),
        "expected: open() returns the secret of the first put()"
    );
    let keys = expect_ok(vault.keys_in_use().await, "keys_in_use() lists keys");
    assert!(!keys.is_empty(), "expected: keys_in_use() lists the key of a stored secret; got: none");
    expect_ok(vault.check_keys().await, "check_keys() accepts the provider that sealed the secrets");
    let left = expect_ok(vault.rewrap(10).await, "rewrap() returns a number");
    assert_eq!(left, 0, "expected: rewrap() leaves no record while the provider has one key");
    let keys = expect_ok(vault.keys_in_use().await, "keys_in_use() lists keys");
    assert_eq!(keys.len(), 1, "expected: only the primary key is in use after rewrap()");
    for other in similar_ids(&id) {
        let opened = vault.open(&other).await;
        assert!(
            is_missing(&opened),
            "expected: {other}, which differs from the stored id, is Missing; got: {opened:?}"
        );
    }
    check_forget(&vault, &id, by).await;
    check_old_epoch(&vault, &id, by).await;
}

fn login(tenant: TenantId, version: i64) -> CredentialId {
    let owner = SecretOwner::Tenant(tenant);
    CredentialId { owner, database: "t".into(), role: "t_v1".into(), purpose: Purpose::Login, version }
}

/// Ids that differ from this one in exactly one part.
fn similar_ids(id: &CredentialId) -> [CredentialId; 5] {
    let same = || id.clone();
    [
        CredentialId { owner: SecretOwner::Tenant(TenantId::new()), ..same() },
        CredentialId { database: "u".into(), ..same() },
        CredentialId { role: "t_v2".into(), ..same() },
        CredentialId { purpose: Purpose::SetupLink, ..same() },
        CredentialId { version: 2, ..same() },
    ]
}

async fn check_forget(vault: &impl VaultWriter, id: &CredentialId, by: FencingToken) {
    let tenant = TenantId::new();
    expect_ok(vault.put(&login(tenant, 1), &SecretString::from("theirs"), by).await, "put() stores a second secret");
    for _ in 0..2 {
        expect_ok(vault.forget(id, by).await, "forget() deletes a secret and can be repeated");
    }
    let missing = vault.open(id).await;
    assert!(is_missing(&missing), "expected: open() after forget() is Missing; got: {missing:?}");
    let (deleted, _) = expect_ok(vault.forget_tenant(tenant, by).await, "forget_tenant() deletes secrets");
    assert_eq!(deleted, 1, "expected: forget_tenant() deletes all secrets of the tenant and returns their number");
    let (deleted, _) = expect_ok(vault.forget_tenant(tenant, by).await, "forget_tenant() can be repeated");
    assert_eq!(deleted, 0, "expected: a repeated forget_tenant() finds no secret");
}

async fn check_old_epoch(vault: &impl VaultWriter, id: &CredentialId, by: FencingToken) {
    expect_ok(vault.fence(by.operation, by.epoch + 1).await, "fence() raises the epoch");
    let put = vault.put(id, &SecretString::from("x"), by).await;
    assert!(is_fenced(&put), "expected: put() under an old epoch is Fenced; got: {put:?}");
    let forget = vault.forget(id, by).await;
    assert!(is_fenced(&forget), "expected: forget() under an old epoch is Fenced; got: {forget:?}");
    let forget = vault.forget_tenant(TenantId::new(), by).await;
    assert!(is_fenced(&forget), "expected: forget_tenant() under an old epoch is Fenced; got: {forget:?}");
    let lower = vault.fence(by.operation, by.epoch).await;
    assert!(is_fenced(&lower), "expected: fence() with a lower epoch is Fenced; got: {lower:?}");
    let missing = vault.open(id).await;
    assert!(is_missing(&missing), "expected: a fenced put() stores nothing; got: {missing:?}");
}

fn is_fenced<T>(answer: &Result<T, VaultError>) -> bool {
    matches!(answer, Err(VaultError::Store(StoreError::Fenced)))
}

fn is_missing<T>(answer: &Result<T, VaultError>) -> bool {
    matches!(answer, Err(VaultError::Missing(_)))
}
