use crate::error::{KeyError, VaultError};
use crate::secret::CredentialId;
use crate::store::vault::LocalKeyring;
use crate::store::vault::record::{context, open, seal};
use secrecy::SecretString;

/// A sealed secret without a store around it, and what opens it: for the benchmark.
pub struct SealBench {
    keys: LocalKeyring,
    id: CredentialId,
    record: Vec<u8>,
}
impl SealBench {
    #[doc(hidden)]
    pub async fn seal(keys: LocalKeyring, id: CredentialId, secret: &SecretString) -> Result<Self, KeyError> {
        let (_, record) = seal(&keys, &id, secret).await?;
        Ok(Self { keys, id, record })
    }
    #[doc(hidden)]
    pub async fn open(&self) -> Result<SecretString, VaultError> {
        open(&self.keys, &self.id, &self.record).await
    }
    #[doc(hidden)]
    pub fn context(&self) -> Vec<u8> {
        context(&self.id)
    }
}
