//! [`CredentialVault`] and [`VaultWriter`] over the landlord's table `tenantry.credentials`.
//!
//! Every write of a secret is one autocommitted statement that checks the writer's epoch, and the check record of the
//! key (see `keys`), under row locks. So a stale worker, or a node with other bytes for the key, stores nothing.
use super::{CredentialVault, KeyDisposal, KeyProvider, VaultWriter, record};
use crate::error::{StoreError, UnreadableRow, VaultError, chain};
use crate::operation::{FencingToken, OperationId};
use crate::secret::{CredentialId, KeyId, SecretOwner};
use crate::store::schema::LandlordPool;
use crate::tenant::TenantId;
use async_trait::async_trait;
use secrecy::SecretString;
use sqlx::{PgConnection, PgPool, Row, postgres::PgRow};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod keys;
use keys::Proof;

/// Sealed secrets in the landlord's table `tenantry.credentials`. Every write of a secret is one autocommitted
/// statement. Before the first secret under a key, a short transaction stores the key's check record.
#[derive(Clone)]
pub struct PgVault {
    landlord: LandlordPool,
    keys: Arc<dyn KeyProvider>,
    /// Proofs of the keys whose bytes this process has compared with the landlord's.
    proofs: Arc<Mutex<HashMap<KeyId, Proof>>>,
}

const FENCE: &str = "INSERT INTO tenantry.epochs AS e (operation, epoch) VALUES ($1, $2)
    ON CONFLICT (operation) DO UPDATE SET epoch = EXCLUDED.epoch WHERE e.epoch <= EXCLUDED.epoch
    RETURNING epoch";
const OPEN: &str = "SELECT record FROM tenantry.credentials
    WHERE owner = $1 AND database = $2 AND role = $3 AND purpose = $4 AND version = $5";
/// Returns a row if the writer's epoch is the stored one. FOR SHARE on the epoch makes a stale write that waits behind
/// a takeover see the new epoch, so it cannot land after the takeover. If the operation's journal is in this database
/// too, the commit need not reach the disk now: the next intent of the operation commits after it, and is waited for.
/// FOR SHARE on the check record ($10, null if the key has none) keeps a node with other bytes for this key from
/// storing its first secret at the same moment.
const PUT: &str = "WITH fence AS (
    SELECT CASE WHEN EXISTS (SELECT FROM tenantry.operations WHERE id = $8)
        THEN set_config('synchronous_commit', 'off', true) ELSE '' END AS commit
    FROM tenantry.epochs WHERE operation = $8 AND epoch = $9 FOR SHARE
), proof AS (
    SELECT 1 FROM tenantry.credentials
    WHERE owner = 'landlord' AND database = '' AND role = $6 AND purpose = 'key_check' AND version = 1 AND record = $10
    FOR SHARE
), may AS (
    SELECT commit, $10::bytea IS NULL OR EXISTS (SELECT FROM proof) AS proven FROM fence
), kept AS (
    INSERT INTO tenantry.credentials (owner, database, role, purpose, version, key_id, record)
    SELECT $1, $2, $3, $4, $5, $6, $7 FROM may WHERE commit IS NOT NULL AND proven
    ON CONFLICT DO NOTHING RETURNING 1
)
SELECT proven, EXISTS (SELECT FROM kept) FROM may";
const FORGET: &str = "WITH fence AS (
    SELECT 1 FROM tenantry.epochs WHERE operation = $6 AND epoch = $7 FOR SHARE
), gone AS (
    DELETE FROM tenantry.credentials USING fence
    WHERE owner = $1 AND database = $2 AND role = $3 AND purpose = $4 AND version = $5
)
SELECT 1 FROM fence";
const FORGET_OWNER: &str = "WITH fence AS (
    SELECT 1 FROM tenantry.epochs WHERE operation = $2 AND epoch = $3 FOR SHARE
), gone AS (
    DELETE FROM tenantry.credentials USING fence WHERE owner = $1 RETURNING 1
)
SELECT (SELECT count(*) FROM gone) FROM fence";
/// The distinct keys come from an index scan. One lookup for each key then finds out whether a secret names it.
const KEYS: &str = "SELECT k.key_id FROM (SELECT DISTINCT key_id FROM tenantry.credentials) k
    WHERE EXISTS (SELECT FROM tenantry.credentials c WHERE c.key_id = k.key_id AND c.purpose <> 'key_check')
    ORDER BY k.key_id";
const OTHERS: &str = "SELECT owner, database, role, purpose, version, record FROM tenantry.credentials
    WHERE key_id <> $1 AND purpose <> 'key_check' ORDER BY owner, database, role, purpose, version LIMIT $2";
const COUNT_OTHERS: &str = "SELECT count(*) FROM tenantry.credentials WHERE key_id <> $1 AND purpose <> 'key_check'";
/// Waits for every statement that is storing a secret under one of these check records.
const LOCK_CHECKS: &str = "SELECT 1 FROM tenantry.credentials WHERE purpose = 'key_check' AND key_id <> $1
    ORDER BY key_id FOR UPDATE";
/// Deletes check records of keys that no secret names. It is a separate statement after [`LOCK_CHECKS`], so that its
/// snapshot contains the secrets that were stored before the lock was granted.
const RETIRE_CHECKS: &str = "DELETE FROM tenantry.credentials c WHERE c.purpose = 'key_check' AND c.key_id <> $1
    AND NOT EXISTS (SELECT FROM tenantry.credentials o WHERE o.key_id = c.key_id AND o.purpose <> 'key_check')";
/// As in [`PUT`], the check record ($9) is locked while the secret's record is changed to name the key.
const REWRAP: &str = "WITH proof AS (
    SELECT 1 FROM tenantry.credentials
    WHERE owner = 'landlord' AND database = '' AND role = $6 AND purpose = 'key_check' AND version = 1 AND record = $9
    FOR SHARE
)
UPDATE tenantry.credentials SET key_id = $6, record = $7
    WHERE owner = $1 AND database = $2 AND role = $3 AND purpose = $4 AND version = $5 AND record = $8
      AND ($9::bytea IS NULL OR EXISTS (SELECT FROM proof))";
/// READ COMMITTED, whatever the default of the database is: each statement must see what was committed before its lock
/// was granted.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
/// Maximum attempts to store a secret. Nodes with different bytes for one key, each about to store its first secret,
/// may replace each other's check record. As soon as one of them has stored a secret, the others are refused.
const MAX_ATTEMPTS: u32 = 10;

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// A statement with the five columns of the id bound to $1 to $5.
fn bind_id(statement: &'static str, id: &CredentialId) -> Query<'static> {
    sqlx::query(statement)
        .bind(id.owner.to_string())
        .bind(id.database.clone())
        .bind(id.role.clone())
        .bind(id.purpose.as_str())
        .bind(id.version)
}

impl PgVault {
    /// Uses the application's pool to the landlord, and its keys.
    pub fn new(landlord: PgPool, keys: Arc<dyn KeyProvider>) -> Self {
        Self::over(LandlordPool::new(landlord), keys)
    }
    pub(crate) fn over(landlord: LandlordPool, keys: Arc<dyn KeyProvider>) -> Self {
        Self { landlord, keys, proofs: Arc::default() }
    }

    fn proofs(&self) -> MutexGuard<'_, HashMap<KeyId, Proof>> {
        // A poisoned lock is used anyway: no code panics while it holds the lock, so the map is consistent.
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn record(&self, id: &CredentialId) -> Result<Option<Vec<u8>>, StoreError> {
        let row = bind_id(OPEN, id).fetch_optional(&self.landlord).await?;
        Ok(row.map(|r| r.try_get(0)).transpose()?)
    }

    /// Id of the provider's primary key. The provider has no call for it, so a throwaway record is sealed.
    async fn primary(&self) -> Result<KeyId, VaultError> {
        let probe = CredentialId::key_check(&KeyId::new("primary"));
        Ok(record::seal(&*self.keys, &probe, &SecretString::from("probe")).await?.0)
    }

    /// Wraps the data key of one secret with the primary key.
    async fn rewrap_row(&self, row: &PgRow) -> Result<(), VaultError> {
        let (id, old) = parse_row(row)?;
        if let Some((key, renewed)) = record::rewrap(&*self.keys, &id, &old).await? {
            let proof = self.prove(&key).await?;
            let update = bind_id(REWRAP, &id).bind(key.as_str().to_owned()).bind(renewed).bind(old).bind(proof);
            let changed = update.execute(&self.landlord).await.map_err(StoreError::from)?;
            if changed.rows_affected() == 0 {
                self.forget_proof(&key);
            }
        }
        Ok(())
    }

    /// Deletes the check records of keys that no secret names. One transaction: everything or nothing, also when the
    /// future is dropped.
    async fn retire_checks(&self, primary: &KeyId) -> Result<(), StoreError> {
        let retire = async |session: &mut PgConnection| {
            sqlx::query(LOCK_CHECKS).bind(primary.as_str()).execute(&mut *session).await?;
            sqlx::query(RETIRE_CHECKS).bind(primary.as_str()).execute(session).await?;
            Ok(())
        };
        self.landlord.transaction(BEGIN, retire).await
    }
}

#[async_trait]
impl CredentialVault for PgVault {
    async fn open(&self, id: &CredentialId) -> Result<SecretString, VaultError> {
        let sealed = self.record(id).await?.ok_or_else(|| VaultError::Missing(id.clone()))?;
        record::open(&*self.keys, id, &sealed).await
    }
}

#[async_trait]
impl VaultWriter for PgVault {
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), VaultError> {
        let fence = sqlx::query_scalar(FENCE).bind(operation.as_uuid()).bind(epoch);
        let raised: Option<i64> = fence.fetch_optional(&self.landlord).await.map_err(StoreError::from)?;
        raised.map(drop).ok_or(StoreError::Fenced.into())
    }

    async fn put(
        &self, id: &CredentialId, secret: &SecretString, writer: FencingToken,
    ) -> Result<SecretString, VaultError> {
        let (key, sealed) = record::seal(&*self.keys, id, secret).await?;
        for _ in 0..MAX_ATTEMPTS {
            let proof = self.prove(&key).await?;
            let put = bind_id(PUT, id).bind(key.as_str().to_owned()).bind(sealed.clone());
            let put = put.bind(writer.operation.as_uuid()).bind(writer.epoch).bind(proof);
            let row = put.fetch_optional(&self.landlord).await.map_err(StoreError::from)?.ok_or(StoreError::Fenced)?;
            let column = |at: usize| row.try_get::<bool, _>(at).map_err(StoreError::from);
            match (column(0)?, column(1)?) {
                (true, true) => return Ok(secret.clone()),
                (true, false) => return self.open(id).await,
                (false, _) => self.forget_proof(&key),
            }
        }
        Err(StoreError::contended("other nodes are storing secrets under this key id with other key bytes").into())
    }

    async fn forget(&self, id: &CredentialId, writer: FencingToken) -> Result<(), VaultError> {
        let forget = bind_id(FORGET, id).bind(writer.operation.as_uuid()).bind(writer.epoch);
        let row = forget.fetch_optional(&self.landlord).await.map_err(StoreError::from)?;
        row.map(drop).ok_or_else(|| StoreError::Fenced.into())
    }

    async fn forget_tenant(&self, tenant: TenantId, writer: FencingToken) -> Result<(u64, KeyDisposal), VaultError> {
        let owner = SecretOwner::Tenant(tenant).to_string();
        let forget = sqlx::query_scalar(FORGET_OWNER).bind(owner).bind(writer.operation.as_uuid()).bind(writer.epoch);
        let deleted: Option<i64> = forget.fetch_optional(&self.landlord).await.map_err(StoreError::from)?;
        let deleted = deleted.ok_or(StoreError::Fenced)?;
        Ok((deleted.unsigned_abs(), self.keys.forget(tenant).await?))
    }

    async fn rewrap(&self, limit: u32) -> Result<u64, VaultError> {
        let primary = self.primary().await?;
        let rows = sqlx::query(OTHERS).bind(primary.as_str()).bind(i64::from(limit)).fetch_all(&self.landlord).await;
        let (mut refused, mut progress) = (None, false);
        for row in rows.map_err(StoreError::from)? {
            match self.rewrap_row(&row).await {
                Ok(()) => progress = true,
                Err(error) if error.is_of_one_record() => {
                    tracing::warn!(error = %chain(&error), "a secret keeps its old key");
                    refused = refused.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        if let (Some(error), false) = (refused, progress) {
            return Err(error);
        }
        let left: i64 = sqlx::query_scalar(COUNT_OTHERS)
            .bind(primary.as_str())
            .fetch_one(&self.landlord)
            .await
            .map_err(StoreError::from)?;
        if left == 0 {
            self.retire_checks(&primary).await?;
        }
        Ok(left.unsigned_abs())
    }

    async fn keys_in_use(&self) -> Result<Vec<KeyId>, VaultError> {
        let keys: Vec<String> = sqlx::query_scalar(KEYS).fetch_all(&self.landlord).await.map_err(StoreError::from)?;
        Ok(keys.into_iter().map(KeyId::new).collect())
    }

    async fn primary_key(&self) -> Result<Option<KeyId>, VaultError> {
        self.primary().await.map(Some)
    }

    async fn check_keys(&self) -> Result<(), VaultError> {
        for key in self.keys_in_use().await? {
            self.check_use(&key).await?;
        }
        Ok(())
    }
}

fn parse_row(row: &PgRow) -> Result<(CredentialId, Vec<u8>), UnreadableRow> {
    let text = |name: &str| row.try_get(name).unwrap_or_else(|_| String::from("?"));
    let id = || ["owner", "database", "role", "purpose"].map(text).join("/");
    read_row(row).map_err(|cause| UnreadableRow::new("credentials", id(), cause))
}

fn read_row(row: &PgRow) -> Result<(CredentialId, Vec<u8>), StoreError> {
    let text = |name: &str| row.try_get::<String, _>(name);
    let id = CredentialId {
        owner: text("owner")?.parse().map_err(StoreError::corrupt)?,
        database: text("database")?,
        role: text("role")?,
        purpose: text("purpose")?.parse().map_err(StoreError::corrupt)?,
        version: row.try_get("version")?,
    };
    Ok((id, row.try_get("record")?))
}

impl fmt::Debug for PgVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PgVault(..)")
    }
}
