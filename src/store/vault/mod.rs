//! Secrets under an id, sealed at rest; keys that wrap data keys.
use crate::error::{KeyError, VaultError};
use crate::operation::{FencingToken, OperationId};
use crate::secret::{CredentialId, KeyId};
use crate::tenant::TenantId;
use async_trait::async_trait;
use secrecy::{SecretBox, SecretString};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

mod keyring;
#[cfg(feature = "testing")]
mod memory;
mod postgres;
pub(crate) mod record;
pub use keyring::LocalKeyring;
#[cfg(feature = "testing")]
pub use memory::MemoryVault;
pub use postgres::PgVault;

/// What resolver and web need of a vault: one read.
#[async_trait]
pub trait CredentialVault: Send + Sync + 'static {
    /// The secret of this id. `Missing` if none is kept, `DoesNotOpen` if the record was made for another id or was
    /// changed. One read; dropping the future has no effect.
    async fn open(&self, id: &CredentialId) -> Result<SecretString, VaultError>;
}

#[async_trait]
impl<T: CredentialVault + ?Sized> CredentialVault for Arc<T> {
    async fn open(&self, id: &CredentialId) -> Result<SecretString, VaultError> {
        (**self).open(id).await
    }
}

/// Changes. Every call is atomic and idempotent; a write below the highest epoch that `fence` has seen, or of an
/// operation that was never fenced, is [`StoreError::Fenced`](crate::error::StoreError::Fenced).
#[async_trait]
pub trait VaultWriter: CredentialVault {
    /// From now on only writes of `operation` with at least this epoch succeed; a lower one than is known is `Fenced`.
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), VaultError>;
    /// Seals and keeps a secret, unless one is kept under this id: then nothing changes, and what is kept is what
    /// counts. Returns the kept secret either way, so that a worker that takes over goes on with the first one's.
    ///
    /// The first secret under a key id decides which bytes the id has: a vault whose provider has other bytes is refused
    /// with [`KeyError::WrongBytes`] and stores nothing, also if both store their first secret at the same moment.
    async fn put(
        &self, id: &CredentialId, secret: &SecretString, writer: FencingToken,
    ) -> Result<SecretString, VaultError>;
    /// Deletes one. Absent already: `Ok`.
    async fn forget(&self, id: &CredentialId, writer: FencingToken) -> Result<(), VaultError>;
    /// Deletes every secret of a tenant and returns how many there were; then asks the key provider to forget the
    /// tenant's key.
    async fn forget_tenant(&self, tenant: TenantId, writer: FencingToken) -> Result<(u64, KeyDisposal), VaultError>;
    /// Wraps at most `limit` records anew that were wrapped by another key than the provider's primary; returns how
    /// many are left. When none is, no key but the primary is in use.
    async fn rewrap(&self, limit: u32) -> Result<u64, VaultError>;
    /// Every key id that a secret names; a check record is no secret.
    async fn keys_in_use(&self) -> Result<Vec<KeyId>, VaultError>;
    /// Whether the provider can open what is stored: it holds each key in use (else `Key(Unknown)`), with the bytes that
    /// sealed the secrets (else `Key(WrongBytes)`). Reads only, so a refused start changes nothing.
    async fn check_keys(&self) -> Result<(), VaultError>;
}

/// A data key on its way. The plain key exists only here.
pub type DataKey = SecretBox<[u8; 32]>;

/// What is stored beside the ciphertext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which key wrapped it.
    pub key: KeyId,
    /// The wrapped data key, as the provider made it.
    pub bytes: Vec<u8>,
}

/// Wraps data keys. `tenant` is `None` for a server's or the landlord's own secrets; a provider may bind it as context
/// or keep a key per tenant.
#[async_trait]
pub trait KeyProvider: Send + Sync + 'static {
    /// Wraps with the primary key.
    async fn wrap(&self, tenant: Option<TenantId>, key: &DataKey) -> Result<WrappedKey, KeyError>;
    /// Unwraps with whichever key it names.
    async fn unwrap(&self, tenant: Option<TenantId>, wrapped: &WrappedKey) -> Result<DataKey, KeyError>;
    /// Whether this provider can unwrap what `key` wrapped.
    async fn holds(&self, key: &KeyId) -> Result<bool, KeyError>;
    /// Destroys the tenant's own key, if it has one.
    async fn forget(&self, tenant: TenantId) -> Result<KeyDisposal, KeyError>;
}

#[async_trait]
impl<T: KeyProvider + ?Sized> KeyProvider for Arc<T> {
    async fn wrap(&self, tenant: Option<TenantId>, key: &DataKey) -> Result<WrappedKey, KeyError> {
        (**self).wrap(tenant, key).await
    }
    async fn unwrap(&self, tenant: Option<TenantId>, wrapped: &WrappedKey) -> Result<DataKey, KeyError> {
        (**self).unwrap(tenant, wrapped).await
    }
    async fn holds(&self, key: &KeyId) -> Result<bool, KeyError> {
        (**self).holds(key).await
    }
    async fn forget(&self, tenant: TenantId) -> Result<KeyDisposal, KeyError> {
        (**self).forget(tenant).await
    }
}

/// What became of a purged tenant's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyDisposal {
    /// It had one of its own, which is destroyed: no backup opens any more.
    Destroyed,
    /// It shared a key: records in old backups of the landlord still open.
    SharedKey,
}
