//! Logins of tenants in the landlord: reads and writes of rows, and their retirement.
use super::rows;
use super::write::{self, Statement, fenced_write, status_change};
use crate::directory::{DatabaseUser, UserStatus};
use crate::error::{Rows, StoreError, UnreadableRow};
use crate::names::{RoleName, ServerName};
use crate::operation::{FencingToken, OperationId};
use crate::store::registry::{Retirement, rules};
use crate::store::schema::LandlordPool;
use crate::tenant::TenantId;
use sqlx::{Row, postgres::PgRow, types::Json};
use std::time::Duration;

const LIST: &str = "SELECT tenant_id, server, database, role, generation, status, reason
    FROM tenantry.tenant_database_users WHERE tenant_id = $1
    ORDER BY generation, server COLLATE \"C\", role COLLATE \"C\"";

pub(super) async fn list(landlord: &LandlordPool, tenant: TenantId) -> Result<Vec<DatabaseUser>, StoreError> {
    let rows = sqlx::query(LIST).bind(tenant.as_uuid()).fetch_all(landlord).await?;
    rows.iter().map(|row| Ok(rows::parse_user(row)?)).collect()
}

// The parameters of a user are $3 to $9 in both statements, see `bind_user`.

const ADD: &str = fenced_write!(
    "tenant AS (SELECT t.id FROM tenantry.tenants t, fence
        WHERE t.id = $3 AND (t.status <> 'deleted' OR $8 = 'dropped') FOR SHARE OF t),
    done AS (INSERT INTO tenantry.tenant_database_users
            (tenant_id, server, database, role, generation, status, reason, dropped_at, retry_at)
        SELECT id, $4, $5, $6, $7, $8, $9, CASE WHEN $8 = 'dropped' THEN now() END,
            CASE WHEN $8 = 'retiring' THEN now() END FROM tenant
        ON CONFLICT (server, role) DO NOTHING RETURNING role)"
);
/// $10 is the number of seconds until the login is due.
const ADD_RETIRING: &str = fenced_write!(
    "tenant AS (SELECT t.id FROM tenantry.tenants t, fence WHERE t.id = $3 AND t.status <> 'deleted' FOR SHARE OF t),
    done AS (INSERT INTO tenantry.tenant_database_users
            (tenant_id, server, database, role, generation, status, reason, retry_at, metadata)
        SELECT id, $4, $5, $6, $7, $8, $9, now() + make_interval(secs => $10), jsonb_build_object('by', $1::uuid)
        FROM tenant
        ON CONFLICT (server, role) DO NOTHING RETURNING role)"
);
/// Does not check the tenant's status: a login of a deleted tenant that is recorded as dropped may turn out to exist
/// still.
const REPLACE: &str = fenced_write!(
    "done AS (UPDATE tenantry.tenant_database_users u
        SET database = $5, generation = $7, status = $8, reason = $9, updated_at = now(),
            attempts = 0, retry_at = CASE WHEN $8 = 'retiring' THEN now() END,
            metadata = CASE WHEN u.status = $8 THEN u.metadata ELSE ",
    status_change!(),
    " END,
            dropped_at = CASE WHEN $8 = 'dropped' THEN coalesce(u.dropped_at, now()) END
        FROM fence WHERE u.tenant_id = $3 AND u.server = $4 AND u.role = $6 AND u.status = $10
        RETURNING u.role)"
);
const STORED: &str = "SELECT tenant_id, server, database, role, generation, status, reason
    FROM tenantry.tenant_database_users WHERE server = $1 AND role = $2";
const OTHER_ACTIVE: &str = "SELECT role FROM tenantry.tenant_database_users
    WHERE tenant_id = $1 AND server = $2 AND database = $3 AND role <> $4 AND status = 'active'";
const TENANT: &str = "SELECT 1 FROM tenantry.tenants WHERE id = $1 AND status <> 'deleted'";

pub(super) async fn put(
    landlord: &LandlordPool, expected: Option<UserStatus>, user: &DatabaseUser, writer: FencingToken,
) -> Result<(), StoreError> {
    rules::check_user(user)?;
    let put = match expected {
        None => bind_user(write::statement(ADD, Some(writer)), user),
        Some(status) => bind_user(write::statement(REPLACE, Some(writer)), user).bind(status.as_str()),
    };
    if write::run(landlord, put).await? {
        return Ok(());
    }
    explain(landlord, expected, user).await
}

pub(super) async fn put_retiring(
    landlord: &LandlordPool, user: &DatabaseUser, after: Duration, writer: FencingToken,
) -> Result<(), StoreError> {
    rules::check_retiring(user)?;
    let put = bind_user(write::statement(ADD_RETIRING, Some(writer)), user).bind(after.as_secs_f64());
    if write::run(landlord, put).await? {
        return Ok(());
    }
    explain(landlord, None, user).await
}

/// Finds the reason why a write of a user changed nothing. `Ok` if the stored row is the user already.
async fn explain(landlord: &LandlordPool, expected: Option<UserStatus>, user: &DatabaseUser) -> Result<(), StoreError> {
    let stored = sqlx::query(STORED).bind(user.server.as_str()).bind(user.role.as_str());
    let stored = stored.fetch_optional(landlord).await?.as_ref().map(rows::parse_user).transpose()?;
    match rules::compare_with_stored_user(stored.as_ref(), expected, user) {
        Some(result) => return result,
        None if user.status != UserStatus::Active => {}
        None => {
            let other = sqlx::query(OTHER_ACTIVE).bind(user.tenant.as_uuid()).bind(user.server.as_str());
            let other = other.bind(user.database.as_str()).bind(user.role.as_str());
            if other.fetch_optional(landlord).await?.is_some() {
                return Err(rules::second_active());
            }
        }
    }
    let tenant = sqlx::query(TENANT).bind(user.tenant.as_uuid()).fetch_optional(landlord).await?;
    Err(if tenant.is_some() { write::concurrent_change() } else { rules::no_tenant() })
}

fn bind_user<'q>(statement: Statement<'q>, user: &'q DatabaseUser) -> Statement<'q> {
    statement
        .bind(user.tenant.as_uuid())
        .bind(user.server.as_str())
        .bind(user.database.as_str())
        .bind(user.role.as_str())
        .bind(user.generation.0)
        .bind(user.status.as_str())
        .bind(&user.reason)
}

const RETIRING: &str =
    "SELECT tenant_id, server, database, role, generation, status, reason, attempts, retry_at, metadata
    FROM tenantry.tenant_database_users WHERE status = 'retiring' ORDER BY updated_at, server, role LIMIT $1";
/// Follows the login $2 of the server $1, if these are given.
const RETIRING_PAGE: &str =
    "SELECT tenant_id, server, database, role, generation, status, reason, attempts, retry_at, metadata
    FROM tenantry.tenant_database_users WHERE status = 'retiring' AND ($1::text IS NULL OR (server, role) > ($1, $2))
    ORDER BY server, role LIMIT $3";
/// SKIP LOCKED: concurrent calls get different logins.
const TAKE: &str = "UPDATE tenantry.tenant_database_users u SET retry_at = now() + make_interval(secs => $2)
    FROM (SELECT server, role FROM tenantry.tenant_database_users
        WHERE status = 'retiring' AND retry_at <= now() ORDER BY retry_at LIMIT $1 FOR UPDATE SKIP LOCKED) due
    WHERE u.server = due.server AND u.role = due.role
    RETURNING u.tenant_id, u.server, u.database, u.role, u.generation, u.status, u.reason, u.attempts, u.retry_at,
        u.metadata";
/// $5 is null if the login is dropped.
const SETTLE: &str = fenced_write!(
    "done AS (UPDATE tenantry.tenant_database_users u
        SET status = CASE WHEN $5::text IS NULL THEN 'dropped' ELSE 'retiring' END, reason = coalesce($5, u.reason),
            attempts = u.attempts + 1, retry_at = now() + make_interval(secs => $6), updated_at = now(),
            metadata = CASE WHEN $5::text IS NULL THEN ",
    status_change!(),
    " ELSE u.metadata END,
            dropped_at = CASE WHEN $5::text IS NULL THEN now() END
        FROM fence WHERE u.server = $3 AND u.role = $4 AND u.status = 'retiring'
        RETURNING u.role)"
);

/// The metadata that `status_change!` writes. The field names are stored, so they must not change.
#[derive(serde::Deserialize)]
struct StatusChange {
    by: Option<uuid::Uuid>,
    before: Option<UserStatus>,
}

fn parse_retirement(row: &PgRow) -> Result<Retirement, UnreadableRow> {
    let user = rows::parse_user(row)?;
    let id = format!("{}/{}", user.server, user.role);
    let retirement = || -> Result<Retirement, sqlx::Error> {
        let attempts: i32 = row.try_get("attempts")?;
        let Json(change) = row.try_get::<Json<StatusChange>, _>("metadata")?;
        let retirement = Retirement::new(user, attempts.unsigned_abs(), row.try_get("retry_at")?);
        Ok(retirement.retired(change.by.map(OperationId::from_uuid), change.before))
    };
    retirement().map_err(|cause| UnreadableRow::new("tenant_database_users", id, cause.into()))
}

pub(super) async fn list_retiring(landlord: &LandlordPool, limit: u32) -> Result<Rows<Retirement>, StoreError> {
    let rows = sqlx::query(RETIRING).bind(i64::from(limit)).fetch_all(landlord).await?;
    Ok(Rows::parse(&rows, parse_retirement))
}

/// Reads further pages until one has a login that can be parsed, because the caller's next page begins after the last
/// such login.
pub(super) async fn page_retiring(
    landlord: &LandlordPool, after: Option<(&ServerName, &RoleName)>, limit: u32,
) -> Result<Rows<Retirement>, StoreError> {
    let mut after = after.map(|(server, role)| (server.as_str().to_owned(), role.as_str().to_owned()));
    let mut unreadable = vec![];
    loop {
        let (server, role) = after.as_ref().map(|(server, role)| (server.as_str(), role.as_str())).unzip();
        let read = sqlx::query(RETIRING_PAGE).bind(server).bind(role).bind(i64::from(limit));
        let found = read.fetch_all(landlord).await?;
        let mut page = Rows::parse(&found, parse_retirement);
        unreadable.append(&mut page.unreadable);
        if found.len() < limit as usize || limit == 0 || !page.readable.is_empty() {
            return Ok(Rows { unreadable, ..page });
        }
        after =
            found.last().map(|row| Ok::<_, sqlx::Error>((row.try_get("server")?, row.try_get("role")?))).transpose()?;
    }
}

pub(super) async fn take(landlord: &LandlordPool, limit: u32, hold: Duration) -> Result<Rows<Retirement>, StoreError> {
    let rows = sqlx::query(TAKE).bind(i64::from(limit)).bind(hold.as_secs_f64()).fetch_all(landlord).await?;
    Ok(Rows::parse(&rows, parse_retirement))
}

pub(super) async fn settle(
    landlord: &LandlordPool, user: &DatabaseUser, left: Option<(&str, Duration)>, writer: Option<FencingToken>,
) -> Result<(), StoreError> {
    let settle = write::statement(SETTLE, writer).bind(user.server.as_str()).bind(user.role.as_str());
    let settle = settle.bind(left.map(|(reason, _)| reason.to_owned())).bind(left.map(|(_, wait)| wait.as_secs_f64()));
    write::run(landlord, settle).await.map(drop)
}
