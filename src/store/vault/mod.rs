//! The credential vault: secrets under an id, sealed at rest, and the key providers that wrap their data keys.
//!
//! Sagas write secrets through [`VaultWriter`]; the resolver and the web layer read them through [`CredentialVault`].
//! The application supplies the keys as a [`KeyProvider`], for example a [`LocalKeyring`].
//!
//! Invariants: a secret is never stored in plain text. The record of one id does not open under another id. The first
//! secret that is stored under an id stays: a repeated write returns it and changes nothing.
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

/// The read access to a vault that the resolver and the web layer need.
#[async_trait]
pub trait CredentialVault: Send + Sync + 'static {
    /// Reads and opens the secret of this id. `Missing` if none is stored; `DoesNotOpen` if the record was sealed for
    /// another id or was changed. One read; dropping the future has no effect.
    async fn open(&self, id: &CredentialId) -> Result<SecretString, VaultError>;
}

#[async_trait]
impl<T: CredentialVault + ?Sized> CredentialVault for Arc<T> {
    async fn open(&self, id: &CredentialId) -> Result<SecretString, VaultError> {
        (**self).open(id).await
    }
}

/// The write access to a vault. Every call is atomic and idempotent. An operation writes under the epoch that it last
/// passed to [`fence`](Self::fence). A write under another epoch, or of an operation that never called `fence`, is
/// [`StoreError::Fenced`](crate::error::StoreError::Fenced).
#[async_trait]
pub trait VaultWriter: CredentialVault {
    /// From now on, only writes of `operation` with this epoch succeed. An epoch lower than the stored one is `Fenced`
    /// and changes nothing.
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), VaultError>;
    /// Seals and stores a secret, unless one is stored under this id already: then nothing changes. Returns the stored
    /// secret in both cases, so that a new worker continues with the secret of the first one.
    ///
    /// The first secret under a key id decides which key bytes belong to that id. A vault whose provider has other
    /// bytes is refused with [`KeyError::WrongBytes`] and stores nothing, even if both vaults store their first secret
    /// at the same moment.
    async fn put(
        &self, id: &CredentialId, secret: &SecretString, writer: FencingToken,
    ) -> Result<SecretString, VaultError>;
    /// Deletes one secret. An absent one is `Ok`.
    async fn forget(&self, id: &CredentialId, writer: FencingToken) -> Result<(), VaultError>;
    /// Deletes all secrets of a tenant and returns their number. Then asks the key provider to destroy the tenant's own
    /// key.
    async fn forget_tenant(&self, tenant: TenantId, writer: FencingToken) -> Result<(u64, KeyDisposal), VaultError>;
    /// Rewraps the data keys of at most `limit` records that another key than the provider's primary key has wrapped.
    /// Returns the number of such records that are left. When it is 0, only the primary key is in use. A record that
    /// cannot be opened keeps its key and does not stop the others; its error is returned if no record of the batch
    /// could be rewrapped.
    async fn rewrap(&self, limit: u32) -> Result<u64, VaultError>;
    /// Ids of all keys that have wrapped a stored secret. Check records of keys do not count.
    async fn keys_in_use(&self) -> Result<Vec<KeyId>, VaultError>;
    /// Id of the key that would wrap a new secret; `None` if the vault cannot tell. Reads only. The default cannot tell.
    async fn primary_key(&self) -> Result<Option<KeyId>, VaultError> {
        Ok(None)
    }
    /// Checks that the provider can open the stored secrets: it has each key in use (else `Key(Unknown)`), with the
    /// bytes that sealed the secrets (else `Key(WrongBytes)`). Reads only, so a node that is refused at its start has
    /// changed nothing.
    async fn check_keys(&self) -> Result<(), VaultError>;
}

/// The plain data key of one secret. It exists only in memory, while a record is sealed, opened or rewrapped.
pub(crate) type DataKey = SecretBox<[u8; 32]>;

/// A wrapped data key, as it is stored in a record together with the ciphertext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// Id of the key that wrapped it.
    pub key: KeyId,
    /// The wrapped data key, in the provider's own format.
    pub bytes: Vec<u8>,
}

/// Wraps and unwraps data keys, for example in a key management service. `tenant` is `None` for secrets of a server or
/// of the landlord. A provider may bind the tenant to the wrapped key as context, or use one key for each tenant. The
/// *primary key* is the one that wraps new data keys.
///
/// Every call may be repeated, and a dropped future may leave its effect done. Return [`KeyError::Unavailable`] if a
/// later call may succeed: the operation's step is then retried. All other errors are final.
#[async_trait]
pub trait KeyProvider: Send + Sync + 'static {
    /// Wraps a data key with the primary key.
    async fn wrap(&self, tenant: Option<TenantId>, key: &DataKey) -> Result<WrappedKey, KeyError>;
    /// Unwraps a data key with the key that `wrapped` names.
    async fn unwrap(&self, tenant: Option<TenantId>, wrapped: &WrappedKey) -> Result<DataKey, KeyError>;
    /// Whether this provider can unwrap data keys that `key` has wrapped.
    async fn holds(&self, key: &KeyId) -> Result<bool, KeyError>;
    /// Destroys the tenant's own key, if the provider uses one key for each tenant. A purge calls it, and calls it
    /// again after a crash: a key that is destroyed already is `Destroyed`.
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

/// What [`KeyProvider::forget`] did: whether the purged tenant's key is destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyDisposal {
    /// The tenant had its own key, which is destroyed. Secrets in old backups of the landlord can no longer be
    /// decrypted.
    Destroyed,
    /// The tenant shared a key with others, so it was kept. Secrets in old backups of the
    /// landlord can still be decrypted.
    SharedKey,
}
