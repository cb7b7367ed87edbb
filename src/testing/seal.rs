//! Seals and opens one secret without a store, for the benchmark `secret`. It is hidden from the documentation.
use crate::error::{KeyError, VaultError};
use crate::secret::CredentialId;
use crate::store::vault::LocalKeyring;
use crate::store::vault::record::{context, open, seal};
use secrecy::SecretString;

/// A sealed secret in memory, with the keys that open it.
pub struct SealBench {
    keys: LocalKeyring,
    id: CredentialId,
    record: Vec<u8>,
}
impl SealBench {
    /// Seals the secret under this id.
    #[doc(hidden)]
    pub async fn seal(keys: LocalKeyring, id: CredentialId, secret: &SecretString) -> Result<Self, KeyError> {
        let (_, record) = seal(&keys, &id, secret).await?;
        Ok(Self { keys, id, record })
    }
    /// Opens the sealed secret.
    #[doc(hidden)]
    pub async fn open(&self) -> Result<SecretString, VaultError> {
        open(&self.keys, &self.id, &self.record).await
    }
    /// The associated data that the secret is sealed with.
    #[doc(hidden)]
    pub fn context(&self) -> Vec<u8> {
        context(&self.id)
    }
}
