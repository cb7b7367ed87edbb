//! [`CredentialVault`] and [`VaultWriter`] in memory, for tests of the layers above.
//!
//! The records and the checks of keys and epochs are the same as in [`PgVault`](super::PgVault).
use super::{CredentialVault, KeyDisposal, KeyProvider, LocalKeyring, VaultWriter, record};
use crate::error::{KeyError, StoreError, VaultError};
use crate::operation::{FencingToken, OperationId};
use crate::secret::{CredentialId, KeyId};
use crate::tenant::TenantId;
use async_trait::async_trait;
use secrecy::SecretString;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Sealed secrets in memory: the same records as in the landlord. They are lost with the process.
#[derive(Clone)]
pub struct MemoryVault {
    keys: Arc<dyn KeyProvider>,
    state: Arc<Mutex<State>>,
    /// Serialises writes of secrets: the first secret under a key id decides the key's bytes, so two first ones must
    /// not be stored at the same time.
    writes: Arc<tokio::sync::Mutex<()>>,
}

/// Maximum records of one key that are tried, as in [`PgVault`](super::PgVault).
const SAMPLE: usize = 3;

#[derive(Default)]
struct State {
    records: HashMap<CredentialId, (KeyId, Vec<u8>)>,
    epochs: HashMap<OperationId, i64>,
}

impl MemoryVault {
    /// Creates an empty vault with these keys.
    pub fn new(keys: impl KeyProvider) -> Self {
        Self { keys: Arc::new(keys), state: Arc::default(), writes: Arc::default() }
    }
    /// Returns a vault over the same records with other keys, like a second node with another configuration.
    pub fn with_keys(&self, keys: impl KeyProvider) -> Self {
        Self { keys: Arc::new(keys), ..self.clone() }
    }
    fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock is used anyway: no code panics while it holds the lock, so the state is consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Fails with `WrongBytes` if secrets of this key are stored and none of the tried ones opens.
    async fn check_bytes(&self, key: &KeyId) -> Result<(), VaultError> {
        let sample: Vec<_> = {
            let state = self.state();
            let of_key = state.records.iter().filter(|(_, (sealed_by, _))| sealed_by == key);
            of_key.take(SAMPLE).map(|(id, (_, record))| (id.clone(), record.clone())).collect()
        };
        for (id, record) in &sample {
            match record::open(&*self.keys, id, record).await {
                Ok(_) => return Ok(()),
                Err(VaultError::DoesNotOpen(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if sample.is_empty() { Ok(()) } else { Err(KeyError::WrongBytes(key.clone()).into()) }
    }
    /// Id of the provider's primary key. The provider has no call for it, so a throwaway record is sealed.
    async fn primary(&self) -> Result<KeyId, VaultError> {
        let probe = CredentialId::key_check(&KeyId::new("primary"));
        Ok(record::seal(&*self.keys, &probe, &SecretString::from("probe")).await?.0)
    }
    /// Locks the state for a write of this writer; `Fenced` if its epoch is not the stored one.
    fn lock_for(&self, writer: FencingToken) -> Result<MutexGuard<'_, State>, VaultError> {
        let state = self.state();
        if state.epochs.get(&writer.operation) == Some(&writer.epoch) {
            Ok(state)
        } else {
            Err(StoreError::Fenced.into())
        }
    }
}
impl Default for MemoryVault {
    fn default() -> Self {
        Self::new(LocalKeyring::random())
    }
}

#[async_trait]
impl CredentialVault for MemoryVault {
    async fn open(&self, id: &CredentialId) -> Result<SecretString, VaultError> {
        let record = self.state().records.get(id).map(|(_, r)| r.clone());
        record::open(&*self.keys, id, &record.ok_or_else(|| VaultError::Missing(id.clone()))?).await
    }
}

#[async_trait]
impl VaultWriter for MemoryVault {
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), VaultError> {
        let mut state = self.state();
        let stored = state.epochs.entry(operation).or_insert(epoch);
        *stored = epoch.max(*stored);
        if *stored == epoch { Ok(()) } else { Err(StoreError::Fenced.into()) }
    }
    async fn put(
        &self, id: &CredentialId, secret: &SecretString, writer: FencingToken,
    ) -> Result<SecretString, VaultError> {
        let sealed = record::seal(&*self.keys, id, secret).await?;
        let _guard = self.writes.lock().await;
        self.check_bytes(&sealed.0).await?;
        self.lock_for(writer)?.records.entry(id.clone()).or_insert(sealed);
        self.open(id).await
    }
    async fn forget(&self, id: &CredentialId, writer: FencingToken) -> Result<(), VaultError> {
        self.lock_for(writer)?.records.remove(id);
        Ok(())
    }
    async fn forget_tenant(&self, tenant: TenantId, writer: FencingToken) -> Result<(u64, KeyDisposal), VaultError> {
        let deleted = {
            let mut state = self.lock_for(writer)?;
            let before = state.records.len();
            state.records.retain(|id, _| id.owner.tenant() != Some(tenant));
            before - state.records.len()
        };
        Ok((deleted as u64, self.keys.forget(tenant).await?))
    }
    async fn rewrap(&self, limit: u32) -> Result<u64, VaultError> {
        let primary = self.primary().await?;
        let _guard = self.writes.lock().await;
        self.check_bytes(&primary).await?;
        let all: Vec<_> =
            self.state().records.iter().map(|(id, (key, r))| (id.clone(), key.clone(), r.clone())).collect();
        for (id, _, old) in all.into_iter().filter(|(_, key, _)| *key != primary).take(limit as usize) {
            if let Some(renewed) = record::rewrap(&*self.keys, &id, &old).await?
                && let Some(record) = self.state().records.get_mut(&id).filter(|(_, r)| *r == old)
            {
                *record = renewed;
            }
        }
        Ok(self.state().records.values().filter(|(key, _)| *key != primary).count() as u64)
    }
    async fn keys_in_use(&self) -> Result<Vec<KeyId>, VaultError> {
        let keys: BTreeSet<KeyId> = self.state().records.values().map(|(key, _)| key.clone()).collect();
        Ok(keys.into_iter().collect())
    }
    async fn primary_key(&self) -> Result<Option<KeyId>, VaultError> {
        self.primary().await.map(Some)
    }
    async fn check_keys(&self) -> Result<(), VaultError> {
        for key in self.keys_in_use().await? {
            if !self.keys.holds(&key).await? {
                return Err(KeyError::Unknown(key).into());
            }
            self.check_bytes(&key).await?;
        }
        Ok(())
    }
}

impl fmt::Debug for MemoryVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryVault(..)")
    }
}
