use super::{CredentialVault, Forgotten, KeyProvider, VaultWriter, record};
use crate::error::{StoreError, VaultError};
use crate::operation::{OperationId, Writer};
use crate::secret::{CredentialId, KeyId, SecretOwner};
use crate::tenant::TenantId;
use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{PgPool, Row, postgres::PgRow};
use std::{fmt, sync::Arc};

/// Sealed secrets in the landlord's own table. Every write is one autocommitted statement.
#[derive(Clone)]
pub struct PgVault {
    landlord: PgPool,
    keys: Arc<dyn KeyProvider>,
}

const FENCE: &str = "INSERT INTO tenantry.epochs AS e (operation, epoch) VALUES ($1, $2)
    ON CONFLICT (operation) DO UPDATE SET epoch = greatest(e.epoch, EXCLUDED.epoch)
    RETURNING epoch";
const OPEN: &str = "SELECT record FROM tenantry.credentials
    WHERE owner = $1 AND database = $2 AND role = $3 AND purpose = $4 AND version = $5";
/// One row if the fence holds. Its lock keeps a stale write that waits for a takeover from landing after it. A journal in
/// this very database commits it with its next intent: then it is not waited for on the disk.
const PUT: &str = "WITH fence AS (
    SELECT CASE WHEN EXISTS (SELECT FROM tenantry.operations WHERE id = $8)
        THEN set_config('synchronous_commit', 'off', true) ELSE '' END AS commit
    FROM tenantry.epochs WHERE operation = $8 AND epoch = $9 FOR SHARE
), kept AS (
    INSERT INTO tenantry.credentials (owner, database, role, purpose, version, key_id, record)
    SELECT $1, $2, $3, $4, $5, $6, $7 FROM fence WHERE commit IS NOT NULL
    ON CONFLICT DO NOTHING RETURNING 1
)
SELECT EXISTS (SELECT FROM kept) FROM fence";
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
const KEYS: &str = "SELECT DISTINCT key_id FROM tenantry.credentials ORDER BY key_id";
const CHECK: &str = "INSERT INTO tenantry.credentials (owner, database, role, purpose, version, key_id, record)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
const OTHERS: &str = "SELECT owner, database, role, purpose, version, record FROM tenantry.credentials
    WHERE key_id <> $1 AND purpose <> 'key_check' ORDER BY owner, database, role, purpose, version LIMIT $2";
const COUNT_OTHERS: &str = "SELECT count(*) FROM tenantry.credentials WHERE key_id <> $1 AND purpose <> 'key_check'";
/// A key that nothing else names is in use no more.
const RETIRE_CHECKS: &str = "DELETE FROM tenantry.credentials c WHERE c.purpose = 'key_check' AND c.key_id <> $1
    AND NOT EXISTS (SELECT FROM tenantry.credentials o WHERE o.key_id = c.key_id AND o.purpose <> 'key_check')";
const REWRAP: &str = "UPDATE tenantry.credentials SET key_id = $6, record = $7
    WHERE owner = $1 AND database = $2 AND role = $3 AND purpose = $4 AND version = $5 AND record = $8";

/// What a check record holds: that it opens is what counts.
const CHECKED: &str = "tenantry key check";

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

fn bound(statement: &'static str, id: &CredentialId) -> Query<'static> {
    sqlx::query(statement)
        .bind(id.owner.to_string())
        .bind(id.database.clone())
        .bind(id.role.clone())
        .bind(id.purpose.as_str())
        .bind(id.version)
}

impl PgVault {
    /// Over the host's own pool, with the host's keys.
    pub fn new(landlord: PgPool, keys: Arc<dyn KeyProvider>) -> Self {
        Self { landlord, keys }
    }

    async fn record(&self, id: &CredentialId) -> Result<Option<Vec<u8>>, StoreError> {
        let row = bound(OPEN, id).fetch_optional(&self.landlord).await?;
        Ok(row.map(|r| r.try_get(0)).transpose()?)
    }

    /// The primary key's id: the one that wraps.
    async fn seal_check(&self) -> Result<KeyId, VaultError> {
        let probe = CredentialId::key_check(&KeyId::new("primary"));
        let (key, _) = record::seal(&*self.keys, &probe, &SecretString::from("probe")).await?;
        let id = CredentialId::key_check(&key);
        if self.record(&id).await?.is_none() {
            let (sealed_by, sealed) = record::seal(&*self.keys, &id, &SecretString::from(CHECKED)).await?;
            let insert = bound(CHECK, &id).bind(sealed_by.as_str().to_owned()).bind(sealed);
            insert.execute(&self.landlord).await.map_err(StoreError::from)?;
        }
        Ok(key)
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
        let newest: i64 = fence.fetch_one(&self.landlord).await.map_err(StoreError::from)?;
        if newest == epoch { Ok(()) } else { Err(StoreError::Fenced.into()) }
    }

    async fn put(&self, id: &CredentialId, secret: &SecretString, writer: Writer) -> Result<SecretString, VaultError> {
        let (key, sealed) = record::seal(&*self.keys, id, secret).await?;
        let put = bound(PUT, id).bind(key.as_str().to_owned()).bind(sealed);
        let put = put.bind(writer.operation.as_uuid()).bind(writer.epoch);
        let row = put.fetch_optional(&self.landlord).await.map_err(StoreError::from)?.ok_or(StoreError::Fenced)?;
        match row.try_get(0).map_err(StoreError::from)? {
            true => Ok(secret.clone()),
            false => self.open(id).await,
        }
    }

    async fn forget(&self, id: &CredentialId, writer: Writer) -> Result<(), VaultError> {
        let forget = bound(FORGET, id).bind(writer.operation.as_uuid()).bind(writer.epoch);
        let row = forget.fetch_optional(&self.landlord).await.map_err(StoreError::from)?;
        row.map(drop).ok_or_else(|| StoreError::Fenced.into())
    }

    async fn forget_tenant(&self, tenant: TenantId, writer: Writer) -> Result<(u64, Forgotten), VaultError> {
        let owner = SecretOwner::Tenant(tenant).to_string();
        let forget = sqlx::query_scalar(FORGET_OWNER).bind(owner).bind(writer.operation.as_uuid()).bind(writer.epoch);
        let gone: Option<i64> = forget.fetch_optional(&self.landlord).await.map_err(StoreError::from)?;
        let gone = gone.ok_or(StoreError::Fenced)?;
        Ok((gone.unsigned_abs(), self.keys.forget(tenant).await?))
    }

    async fn rewrap(&self, limit: u32) -> Result<u64, VaultError> {
        let primary = self.seal_check().await?;
        let rows = sqlx::query(OTHERS).bind(primary.as_str()).bind(i64::from(limit)).fetch_all(&self.landlord).await;
        for row in rows.map_err(StoreError::from)? {
            let (id, old) = stored(&row)?;
            if let Some((key, renewed)) = record::rewrap(&*self.keys, &id, &old).await? {
                let update = bound(REWRAP, &id).bind(key.as_str().to_owned()).bind(renewed).bind(old);
                update.execute(&self.landlord).await.map_err(StoreError::from)?;
            }
        }
        let left: i64 = sqlx::query_scalar(COUNT_OTHERS)
            .bind(primary.as_str())
            .fetch_one(&self.landlord)
            .await
            .map_err(StoreError::from)?;
        if left == 0 {
            let retire = sqlx::query(RETIRE_CHECKS).bind(primary.as_str());
            retire.execute(&self.landlord).await.map_err(StoreError::from)?;
        }
        Ok(left.unsigned_abs())
    }

    async fn keys_in_use(&self) -> Result<Vec<KeyId>, VaultError> {
        let keys: Vec<String> = sqlx::query_scalar(KEYS).fetch_all(&self.landlord).await.map_err(StoreError::from)?;
        Ok(keys.into_iter().map(KeyId::new).collect())
    }

    async fn check_keys(&self) -> Result<(), VaultError> {
        self.seal_check().await?;
        for key in self.keys_in_use().await? {
            if !self.keys.holds(&key).await? {
                return Err(crate::error::KeyError::Unknown(key).into());
            }
            // A key without a check record has never been primary here, and its records tell for themselves.
            match self.open(&CredentialId::key_check(&key)).await {
                Err(VaultError::Missing(_)) => {}
                checked => drop(checked?.expose_secret() == CHECKED),
            }
        }
        Ok(())
    }
}

fn stored(row: &PgRow) -> Result<(CredentialId, Vec<u8>), StoreError> {
    let word = |name: &str| row.try_get::<String, _>(name);
    let id = CredentialId {
        owner: word("owner")?.parse().map_err(StoreError::corrupt)?,
        database: word("database")?,
        role: word("role")?,
        purpose: word("purpose")?.parse().map_err(StoreError::corrupt)?,
        version: row.try_get("version")?,
    };
    Ok((id, row.try_get("record")?))
}

impl fmt::Debug for PgVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PgVault(..)")
    }
}
