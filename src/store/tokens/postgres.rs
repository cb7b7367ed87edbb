//! [`TokenStore`] over the landlord's tables `tenantry.setup_tokens` and `tenantry.token_events`.
//!
//! Every call is one autocommitted statement. The conditions of a change are in the WHERE clause of the row that it
//! changes, so of two concurrent calls the second one sees the result of the first.
use super::{IssuedToken, LinkId, NewToken, PendingEvent, TokenClaim, TokenEvent, TokenEventKind, TokenStore};
use crate::error::{Rows, StoreError, UnreadableRow};
use crate::operation::{FencingToken, OperationId};
use crate::store::schema::LandlordPool;
use crate::tenant::TenantId;
use async_trait::async_trait;
use sqlx::{PgPool, Row, postgres::PgRow};
use time::OffsetDateTime;

/// Tokens in the landlord's table `tenantry.setup_tokens`. Every call is one autocommitted statement.
#[derive(Clone, Debug)]
pub struct PgTokenStore(LandlordPool);

impl PgTokenStore {
    /// Uses the application's pool to the landlord.
    pub fn new(landlord: PgPool) -> Self {
        Self::over(LandlordPool::new(landlord))
    }
    pub(crate) fn over(landlord: LandlordPool) -> Self {
        Self(landlord)
    }
}

const FENCE: &str = "INSERT INTO tenantry.epochs AS e (operation, epoch) VALUES ($1, $2)
    ON CONFLICT (operation) DO UPDATE SET epoch = EXCLUDED.epoch WHERE e.epoch <= EXCLUDED.epoch
    RETURNING epoch";
/// `$8` is null for a change outside any operation. Returns no row if there is a writer and its epoch is not the stored
/// one. A repeated call finds its own row by the id: `t.id < i.id` keeps the revocation from that row and from newer
/// ones.
const ISSUE: &str = "WITH fence AS (
    SELECT operation FROM tenantry.epochs WHERE operation = $8 AND epoch = $9 FOR SHARE
), may AS (
    SELECT 1 WHERE $8::uuid IS NULL OR EXISTS (SELECT FROM fence)
), issued AS (
    INSERT INTO tenantry.setup_tokens (id, tenant_id, purpose, email, hash, issued_by, expires_at)
    SELECT $1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7) FROM may
    ON CONFLICT (id) DO UPDATE SET email = setup_tokens.email
    RETURNING *
), revoked AS (
    UPDATE tenantry.setup_tokens t SET revoked_at = now() FROM issued i
    WHERE t.tenant_id = i.tenant_id AND t.purpose = i.purpose AND lower(t.email COLLATE \"C\") = lower(i.email COLLATE \"C\")
      AND t.id < i.id
      AND t.claimed_at IS NULL AND t.revoked_at IS NULL
)
SELECT * FROM issued";
const LOOK: &str = "SELECT * FROM tenantry.setup_tokens
    WHERE hash = $1 AND revoked_at IS NULL AND used_at IS NULL AND (expires_at > now() OR claimed_at IS NOT NULL)";
/// The condition is on the row itself: of two concurrent claims, the second one waits for the row's lock and then sees
/// the first one.
const CLAIM: &str = "UPDATE tenantry.setup_tokens
    SET operation_id = coalesce(operation_id, $2), claimed_at = coalesce(claimed_at, now())
    WHERE hash = $1 AND revoked_at IS NULL AND used_at IS NULL AND (expires_at > now() OR claimed_at IS NOT NULL)
    RETURNING *";
const USE_UP: &str = "UPDATE tenantry.setup_tokens SET used_at = coalesce(used_at, now())
    WHERE id = $1 AND operation_id = $2";
const UNCLAIM: &str = "UPDATE tenantry.setup_tokens SET operation_id = NULL, claimed_at = NULL
    WHERE id = $1 AND operation_id = $2 AND used_at IS NULL";
const REVOKE: &str = "UPDATE tenantry.setup_tokens SET revoked_at = now()
    WHERE id = $1 AND claimed_at IS NULL AND revoked_at IS NULL";
const DELIVERED: &str = "UPDATE tenantry.setup_tokens SET delivered_at = coalesce(delivered_at, now()) WHERE id = $1";
const OF_TENANT: &str = "SELECT * FROM tenantry.setup_tokens
    WHERE tenant_id = $1 AND revoked_at IS NULL AND used_at IS NULL
      AND (expires_at > now() OR claimed_at IS NOT NULL) ORDER BY id DESC";
/// If `what` is null, the token was refused. The reason comes from the token's state at this time.
const RECORD: &str = "INSERT INTO tenantry.token_events (at, what, link, tenant_id, client)
    SELECT clock_timestamp() - make_interval(secs => e.age), coalesce(e.what, CASE
            WHEN t.id IS NULL THEN 'unknown'
            WHEN t.used_at IS NOT NULL THEN 'reused'
            WHEN t.revoked_at IS NOT NULL THEN 'revoked'
            WHEN t.claimed_at IS NOT NULL THEN 'claimed'
            WHEN t.expires_at <= now() THEN 'expired'
            ELSE 'other_purpose' END), t.id, t.tenant_id, e.client
    FROM unnest($1::bytea[], $2::text[], $3::text[], $4::float8[]) AS e(hash, what, client, age)
    LEFT JOIN tenantry.setup_tokens t ON t.hash = e.hash";
const EVENTS: &str = "SELECT at, what, link, client FROM tenantry.token_events WHERE tenant_id = $1
    ORDER BY at DESC LIMIT $2";
const FORGET: &str = "WITH fence AS (
    SELECT operation FROM tenantry.epochs WHERE operation = $2 AND epoch = $3 FOR SHARE
), gone AS (
    DELETE FROM tenantry.setup_tokens USING fence WHERE tenant_id = $1
)
SELECT 1 FROM fence";

#[async_trait]
impl TokenStore for PgTokenStore {
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError> {
        let fence = sqlx::query_scalar(FENCE).bind(operation.as_uuid()).bind(epoch);
        let raised: Option<i64> = fence.fetch_optional(&self.0).await?;
        raised.map(drop).ok_or(StoreError::Fenced)
    }
    async fn issue(&self, token: &NewToken, writer: Option<FencingToken>) -> Result<IssuedToken, StoreError> {
        let by = writer.map(|w| w.operation.as_uuid());
        let row = sqlx::query(ISSUE)
            .bind(token.id.as_uuid())
            .bind(token.tenant.as_uuid())
            .bind(token.purpose.as_str())
            .bind(&token.email)
            .bind(&token.hash[..])
            .bind(by)
            .bind(token.lifetime.as_secs_f64())
            .bind(by)
            .bind(writer.map(|w| w.epoch))
            .fetch_optional(&self.0)
            .await?;
        Ok(parse_token(row.as_ref().ok_or(StoreError::Fenced)?)?)
    }
    async fn look_up(&self, hash: &[u8; 32]) -> Result<Option<IssuedToken>, StoreError> {
        let row = sqlx::query(LOOK).bind(&hash[..]).fetch_optional(&self.0).await?;
        Ok(row.as_ref().map(parse_token).transpose()?)
    }
    async fn claim(&self, hash: &[u8; 32], by: OperationId) -> Result<TokenClaim, StoreError> {
        let row = sqlx::query(CLAIM).bind(&hash[..]).bind(by.as_uuid()).fetch_optional(&self.0).await?;
        match row.as_ref().map(parse_token).transpose()? {
            None => Ok(TokenClaim::NotValid),
            Some(token) if token.claimed_by == Some(by) => Ok(TokenClaim::Claimed(token)),
            Some(token) => Ok(TokenClaim::Joined(token)),
        }
    }
    async fn use_up(&self, id: LinkId, by: OperationId) -> Result<(), StoreError> {
        let used = sqlx::query(USE_UP).bind(id.as_uuid()).bind(by.as_uuid()).execute(&self.0).await?;
        let unclaimed = || StoreError::conflict("this operation has not claimed the token");
        if used.rows_affected() == 1 { Ok(()) } else { Err(unclaimed()) }
    }
    async fn unclaim(&self, id: LinkId, by: OperationId) -> Result<(), StoreError> {
        sqlx::query(UNCLAIM).bind(id.as_uuid()).bind(by.as_uuid()).execute(&self.0).await?;
        Ok(())
    }
    async fn revoke(&self, id: LinkId) -> Result<(), StoreError> {
        sqlx::query(REVOKE).bind(id.as_uuid()).execute(&self.0).await?;
        Ok(())
    }
    async fn mark_delivered(&self, id: LinkId) -> Result<(), StoreError> {
        sqlx::query(DELIVERED).bind(id.as_uuid()).execute(&self.0).await?;
        Ok(())
    }
    async fn of_tenant(&self, tenant: TenantId) -> Result<Rows<IssuedToken>, StoreError> {
        let rows = sqlx::query(OF_TENANT).bind(tenant.as_uuid()).fetch_all(&self.0).await?;
        Ok(Rows::parse(&rows, parse_token))
    }
    async fn record(&self, events: &[PendingEvent]) -> Result<(), StoreError> {
        let hashes: Vec<Vec<u8>> = events.iter().map(|e| e.hash.to_vec()).collect();
        let kinds: Vec<Option<&str>> = events.iter().map(|e| e.what.map(TokenEventKind::as_str)).collect();
        let clients: Vec<Option<String>> = events.iter().map(|e| e.client.map(|c| c.to_string())).collect();
        let ages: Vec<f64> = events.iter().map(|e| e.at.elapsed().as_secs_f64()).collect();
        let record = sqlx::query(RECORD).bind(hashes).bind(kinds).bind(clients).bind(ages);
        Ok(record.execute(&self.0).await.map(drop)?)
    }
    async fn events(&self, tenant: TenantId, limit: u32) -> Result<Rows<TokenEvent>, StoreError> {
        let rows = sqlx::query(EVENTS).bind(tenant.as_uuid()).bind(i64::from(limit)).fetch_all(&self.0).await?;
        let id =
            |row: &PgRow| row.try_get("at").map_or_else(|_| String::from("?"), |at: OffsetDateTime| at.to_string());
        Ok(Rows::parse(&rows, |row| {
            read_event(row).map_err(|cause| UnreadableRow::new("token_events", id(row), cause))
        }))
    }
    async fn forget_tenant(&self, tenant: TenantId, writer: FencingToken) -> Result<(), StoreError> {
        let forget = sqlx::query(FORGET).bind(tenant.as_uuid()).bind(writer.operation.as_uuid()).bind(writer.epoch);
        forget.fetch_optional(&self.0).await?.map(drop).ok_or(StoreError::Fenced)
    }
}

fn read_event(row: &PgRow) -> Result<TokenEvent, StoreError> {
    let link: Option<uuid::Uuid> = row.try_get("link")?;
    let what = row.try_get::<String, _>("what")?.parse().map_err(StoreError::corrupt)?;
    Ok(TokenEvent::new(row.try_get("at")?, what, link.map(LinkId::from_uuid), row.try_get("client")?))
}

fn parse_token(row: &PgRow) -> Result<IssuedToken, UnreadableRow> {
    let id = || row.try_get("id").map_or_else(|_| String::from("?"), |id: uuid::Uuid| id.to_string());
    read_token(row).map_err(|cause| UnreadableRow::new("setup_tokens", id(), cause))
}

fn read_token(row: &PgRow) -> Result<IssuedToken, StoreError> {
    let operation: Option<uuid::Uuid> = row.try_get("operation_id")?;
    let delivered: Option<OffsetDateTime> = row.try_get("delivered_at")?;
    Ok(IssuedToken {
        id: LinkId::from_uuid(row.try_get("id")?),
        tenant: TenantId::from_uuid(row.try_get("tenant_id")?),
        purpose: row.try_get::<String, _>("purpose")?.parse().map_err(StoreError::corrupt)?,
        email: row.try_get("email")?,
        expires_at: row.try_get("expires_at")?,
        claimed_by: operation.map(OperationId::from_uuid),
        delivered: delivered.is_some(),
    })
}
