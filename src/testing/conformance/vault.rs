//! [`VaultWriter`].
use super::assertions::expect_ok;
use crate::error::{StoreError, VaultError};
use crate::operation::{FencingToken, OperationId};
use crate::secret::{CredentialId, Purpose};
use crate::store::vault::VaultWriter;
use crate::tenant::TenantId;
use secrecy::{ExposeSecret, SecretString};

/// Sealing, opening, forgetting; that a record opens under its own id alone; fencing.
///
/// # Panics
/// When a promise of [`VaultWriter`] is broken.
pub async fn vault(vault: impl VaultWriter) {
    let by = FencingToken { operation: OperationId::new(), epoch: 2 };
    let (id, secret) = (login(TenantId::new(), 1), SecretString::from("p@ss/w?rd:1#%"));
    let never = vault.put(&id, &secret, by).await;
    assert!(is_fenced(&never), "expected: an operation that was never fenced writes nothing; {never:?}");
    expect_ok(vault.fence(by.operation, by.epoch).await, "a fence");
    let missing = vault.open(&id).await;
    assert!(matches!(missing, Err(VaultError::Missing(_))), "expected: what is not kept is Missing; {missing:?}");

    expect_ok(vault.put(&id, &secret, by).await, "a put");
    let again = expect_ok(vault.put(&id, &SecretString::from("another"), by).await, "a second put");
    assert_eq!(again.expose_secret(), secret.expose_secret(), "expected: the first secret of a version counts");
    let opened = expect_ok(vault.open(&id).await, "opening");
    assert_eq!(opened.expose_secret(), secret.expose_secret(), "expected: what was put is what opens");
    assert!(!expect_ok(vault.keys_in_use().await, "keys").is_empty(), "expected: a record's key is in use");
    expect_ok(vault.check_keys().await, "checking keys");
    assert_eq!(expect_ok(vault.rewrap(10).await, "rewrapping"), 0, "expected: one key leaves nothing to rewrap");
    assert_eq!(expect_ok(vault.keys_in_use().await, "keys").len(), 1, "expected: then the primary key alone is in use");
    for other in strangers(&id) {
        let opened = vault.open(&other).await;
        assert!(matches!(opened, Err(VaultError::Missing(_))), "expected: {other} has no secret; {opened:?}");
    }
    forgetting(&vault, &id, by).await;
    stale(&vault, &id, by).await;
}

fn login(tenant: TenantId, version: i64) -> CredentialId {
    let owner = crate::secret::SecretOwner::Tenant(tenant);
    CredentialId { owner, database: "t".into(), role: "t_v1".into(), purpose: Purpose::Login, version }
}

/// The same id but for one part.
fn strangers(id: &CredentialId) -> [CredentialId; 5] {
    let same = || id.clone();
    [
        CredentialId { owner: crate::secret::SecretOwner::Tenant(TenantId::new()), ..same() },
        CredentialId { database: "u".into(), ..same() },
        CredentialId { role: "t_v2".into(), ..same() },
        CredentialId { purpose: Purpose::SetupLink, ..same() },
        CredentialId { version: 2, ..same() },
    ]
}

async fn forgetting(vault: &impl VaultWriter, id: &CredentialId, by: FencingToken) {
    let neighbour = login(TenantId::new(), 1);
    expect_ok(vault.put(&neighbour, &SecretString::from("theirs"), by).await, "a put");
    for _ in 0..2 {
        expect_ok(vault.forget(id, by).await, "forgetting, also twice");
    }
    assert!(matches!(vault.open(id).await, Err(VaultError::Missing(_))), "expected: what is forgotten is Missing");
    let Some(tenant) = neighbour.owner.tenant() else { return };
    assert_eq!(expect_ok(vault.forget_tenant(tenant, by).await, "forgetting a tenant").0, 1, "expected: all of a tenant's");
    assert_eq!(expect_ok(vault.forget_tenant(tenant, by).await, "forgetting it again").0, 0, "expected: and then none");
}

async fn stale(vault: &impl VaultWriter, id: &CredentialId, by: FencingToken) {
    expect_ok(vault.fence(by.operation, by.epoch + 1).await, "a higher fence");
    let (put, forgot) = (vault.put(id, &SecretString::from("x"), by).await, vault.forget(id, by).await);
    assert!(
        is_fenced(&put) && is_fenced(&forgot),
        "expected: an epoch that is over writes nothing; {put:?}, {forgot:?}"
    );
    assert!(is_fenced(&vault.forget_tenant(TenantId::new(), by).await), "expected: and forgets nobody");
    assert!(is_fenced(&vault.fence(by.operation, by.epoch).await), "expected: a fence is never lowered");
    assert!(matches!(vault.open(id).await, Err(VaultError::Missing(_))), "expected: nothing was written");
}

fn is_fenced<T>(answer: &Result<T, VaultError>) -> bool {
    matches!(answer, Err(VaultError::Store(StoreError::Fenced)))
}

#[track_caller]
fn kept<T>(answer: Result<T, VaultError>, what: &str) -> T {
    expect_ok(answer.map_err(StoreError::unavailable), what)
}
