//! Which bytes belong to a key id: the first secret that is stored under the id decides.
//!
//! [`PgVault`] calls [`PgVault::prove`] before it stores a secret, and [`PgVault::check_use`] when the application asks
//! whether its keys fit. A *check record* of a key is a known text, sealed with the key. It has two uses: one read of
//! it shows that a key has the right bytes, and it orders nodes that store their first secrets at the same time.
//!
//! Invariants:
//! - A secret is stored only while the key's check record has the bytes that the writing vault has opened: the
//!   statement that stores the secret locks that row. So all secrets of one key id are sealed with the same bytes.
use super::{BEGIN, PgVault, bind_id, parse_row};
use crate::error::{KeyError, Rows, StoreError, VaultError};
use crate::secret::{CredentialId, KeyId};
use crate::store::vault::record;
use secrecy::SecretString;
use sqlx::{PgConnection, PgExecutor, Row};

/// Plain text of every check record. Only whether the record opens is of interest.
const CHECKED: &str = "tenantry key check";
/// Maximum secrets of one key that are tried. More than one, so that a single damaged record does not make the right
/// key look wrong.
const SAMPLE: i64 = 3;

const SECRETS: &str = "SELECT owner, database, role, purpose, version, record FROM tenantry.credentials
    WHERE key_id = $1 AND purpose <> 'key_check' LIMIT $2";
const INSERT: &str = "INSERT INTO tenantry.credentials (owner, database, role, purpose, version, key_id, record)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
const REPLACE: &str = "UPDATE tenantry.credentials SET key_id = $6, record = $7
    WHERE owner = $1 AND database = $2 AND role = $3 AND purpose = $4 AND version = $5";
/// Waits for every statement that is storing a secret under the proof of this row.
const LOCK: &str = "SELECT record FROM tenantry.credentials
    WHERE owner = $1 AND database = $2 AND role = $3 AND purpose = $4 AND version = $5 FOR UPDATE";

/// The check record that this vault has opened. `None` if the key provider uses another key for secrets of the landlord
/// (one key for each tenant, for example), so that no check record can prove this key.
pub(super) type Proof = Option<Vec<u8>>;

/// Whether the secrets of a sample, all of one key, can be opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SampleResult {
    /// No stored secret names this key.
    NoSecret,
    /// At least one of them opens.
    One,
    /// None of them opens.
    None,
}

impl PgVault {
    /// Checks that the provider has the right bytes for a key that stored secrets name. Reads only.
    pub(super) async fn check_use(&self, key: &KeyId) -> Result<(), VaultError> {
        let sample = read_sample(&self.landlord, key).await?;
        if sample.is_empty() {
            return Ok(());
        }
        if !self.keys.holds(key).await? {
            return Err(KeyError::Unknown(key.clone()).into());
        }
        let check = CredentialId::key_check(key);
        if let Some(record) = self.record(&check).await?
            && self.can_open(&check, &record).await?
        {
            return Ok(());
        }
        match self.try_sample(&sample).await? {
            SampleResult::None => Err(KeyError::WrongBytes(key.clone()).into()),
            SampleResult::One | SampleResult::NoSecret => Ok(()),
        }
    }

    /// Returns the proof under which secrets of this key may be stored. Stores a check record if there is no valid one.
    pub(super) async fn prove(&self, key: &KeyId) -> Result<Proof, VaultError> {
        let cached = self.proofs().get(key).cloned();
        if let Some(proof) = cached {
            return Ok(proof);
        }
        let id = CredentialId::key_check(key);
        let (sealed_by, fresh) = record::seal(&*self.keys, &id, &SecretString::from(CHECKED)).await?;
        let proof = match self.record(&id).await? {
            _ if sealed_by != *key => None,
            Some(found) if self.can_open(&id, &found).await? => Some(found),
            _ => Some(self.establish(&id, key, fresh).await?),
        };
        self.proofs().insert(key.clone(), proof.clone());
        Ok(proof)
    }

    /// Drops the cached proof after the stored row turned out to differ from it. The next write reads the row again.
    pub(super) fn forget_proof(&self, key: &KeyId) {
        self.proofs().remove(key);
    }

    /// Stores this vault's check record, unless the stored one opens. Locks the row, so that no secret of this key is
    /// stored meanwhile. If the stored secrets refuse the key, the transaction rolls back.
    async fn establish(&self, id: &CredentialId, key: &KeyId, fresh: Vec<u8>) -> Result<Vec<u8>, VaultError> {
        let establish = async |session: &mut PgConnection| self.establish_in(session, id, key, fresh).await;
        self.landlord.transaction(BEGIN, establish).await
    }

    async fn establish_in(
        &self, session: &mut PgConnection, id: &CredentialId, key: &KeyId, fresh: Vec<u8>,
    ) -> Result<Vec<u8>, VaultError> {
        let with = |statement| bind_id(statement, id).bind(key.as_str().to_owned()).bind(fresh.clone());
        with(INSERT).execute(&mut *session).await.map_err(StoreError::from)?;
        let row = bind_id(LOCK, id).fetch_one(&mut *session).await.map_err(StoreError::from)?;
        let found: Vec<u8> = row.try_get(0).map_err(StoreError::from)?;
        if found != fresh && self.can_open(id, &found).await? {
            return Ok(found);
        }
        let sample = read_sample(&mut *session, key).await?;
        if self.try_sample(&sample).await? == SampleResult::None {
            return Err(KeyError::WrongBytes(key.clone()).into());
        }
        with(REPLACE).execute(session).await.map_err(StoreError::from)?;
        Ok(fresh)
    }

    async fn try_sample(&self, sample: &[(CredentialId, Vec<u8>)]) -> Result<SampleResult, VaultError> {
        for (id, record) in sample {
            if self.can_open(id, record).await? {
                return Ok(SampleResult::One);
            }
        }
        Ok(if sample.is_empty() { SampleResult::NoSecret } else { SampleResult::None })
    }

    async fn can_open(&self, id: &CredentialId, record: &[u8]) -> Result<bool, VaultError> {
        match record::open(&*self.keys, id, record).await {
            Ok(_) => Ok(true),
            Err(VaultError::DoesNotOpen(_) | VaultError::Key(KeyError::Unknown(_))) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

async fn read_sample(session: impl PgExecutor<'_>, key: &KeyId) -> Result<Vec<(CredentialId, Vec<u8>)>, StoreError> {
    let rows = sqlx::query(SECRETS).bind(key.as_str()).bind(SAMPLE).fetch_all(session).await?;
    let Rows { readable, mut unreadable } = Rows::parse(&rows, parse_row);
    match unreadable.pop() {
        // With no readable secret the key would count as unused, and another one could take its id.
        Some(row) if readable.is_empty() => Err(row.into()),
        _ => Ok(readable),
    }
}
