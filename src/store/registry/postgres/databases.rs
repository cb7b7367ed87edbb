//! Directory entries in the landlord. A write of an active primary also changes the status of the logins, in the same
//! statement.
use super::rows;
use super::write::{self, Statement, fenced_write, status_change};
use crate::directory::{Generation, TenantDatabase};
use crate::error::StoreError;
use crate::operation::FencingToken;
use crate::store::registry::rules;
use crate::store::schema::LandlordPool;
use crate::tenant::{TenantId, TenantStatus};
use sqlx::types::Json;

const LIST: &str = "SELECT tenant_id, kind, driver, server, host, port, database, login, roles, credential, generation,
        status, settings, schema_state
    FROM tenantry.tenant_databases WHERE tenant_id = $1 AND status <> 'dropped'
    ORDER BY array_position('{primary,replica,backup}', kind), host COLLATE \"C\", port, database COLLATE \"C\"";

pub(super) async fn list(landlord: &LandlordPool, tenant: TenantId) -> Result<Vec<TenantDatabase>, StoreError> {
    let rows = sqlx::query(LIST).bind(tenant.as_uuid()).fetch_all(landlord).await?;
    rows.iter().map(|row| Ok(rows::parse_database(row)?)).collect()
}

// The parameters of an entry are $3 to $16 in every statement, see `bind_entry`. The macros below are CTEs that the
// statements share.

/// Condition: the entry is an active primary on a registered server, so its login changes with it. In Rust:
/// [`rules::is_active_managed_primary`].
macro_rules! is_active_managed_primary {
    () => {
        "($4 = 'primary' AND $14 = 'active' AND $6::text IS NOT NULL)"
    };
}
/// Follows `target`, the rows that the caller has locked. `login` locks the entry's login. `go` has the row of `target`
/// if the entry needs no login or the login exists, so a missing login stops the write.
macro_rules! check_login {
    () => {
        concat!(
            "login AS (SELECT u.role FROM tenantry.tenant_database_users u, target
                WHERE u.server = $6 AND u.role = $10 AND u.tenant_id = $3 AND u.database = $9 AND u.status <> 'dropped'
                FOR UPDATE OF u),
            go AS (SELECT target.id FROM target WHERE NOT ",
            is_active_managed_primary!(),
            " OR EXISTS (SELECT FROM login)), "
        )
    };
}
/// Follows `done`. The entry's login becomes active, and the login that it replaces becomes retiring.
macro_rules! switch_logins {
    () => {
        concat!(
            ", logins AS (UPDATE tenantry.tenant_database_users u
                SET status = CASE WHEN u.role = $10 THEN 'active' ELSE 'retiring' END, updated_at = now(),
                    attempts = 0, retry_at = NULL, metadata = ",
            status_change!(),
            "
                FROM done
                WHERE ",
            is_active_managed_primary!(),
            " AND u.tenant_id = $3 AND u.server = $6 AND u.database = $9
                AND (u.role = $10 AND u.status IN ('pending', 'retiring') OR u.role <> $10 AND u.status = 'active'))"
        )
    };
}
/// Inserts the entry for each row of `go`.
macro_rules! insert_entry {
    ($conflict:literal) => {
        concat!(
            "done AS (INSERT INTO tenantry.tenant_databases AS d (tenant_id, kind, driver, server, host, port, database,
                login, roles, credential, generation, status, settings, schema_state, dropped_at)
            SELECT $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, CASE WHEN $14 = 'dropped' THEN now() END
            FROM go ",
            $conflict,
            " RETURNING d.tenant_id AS id)"
        )
    };
}
/// Locks the tenant, so that it cannot be deleted meanwhile. For a deleted tenant, only a dropped entry may be written.
macro_rules! lock_tenant {
    () => {
        "tenant AS (SELECT t.id FROM tenantry.tenants t, fence
            WHERE t.id = $3 AND (t.status <> 'deleted' OR $14 = 'dropped') FOR SHARE OF t), "
    };
}

const PUBLISH: &str = fenced_write!(
    "target AS (SELECT t.id FROM tenantry.tenants t, fence
        WHERE t.id = $3 AND t.status = $17 FOR NO KEY UPDATE OF t), ",
    check_login!(),
    insert_entry!(
        "ON CONFLICT (tenant_id, kind, host, port, database) DO UPDATE
            SET driver = $5, server = $6, login = $10, roles = $11, credential = $12, generation = $13, status = $14,
                settings = $15, schema_state = $16, updated_at = now(),
                dropped_at = CASE WHEN $14 = 'dropped' THEN now() END"
    ),
    switch_logins!(),
    ", tenant AS (UPDATE tenantry.tenants t SET status = 'active', updated_at = now() FROM done WHERE t.id = done.id)"
);

pub(super) async fn publish(
    landlord: &LandlordPool, expected: TenantStatus, entry: &TenantDatabase, writer: FencingToken,
) -> Result<(), StoreError> {
    rules::check_publication(expected, entry)?;
    let publish = bind_entry(write::statement(PUBLISH, Some(writer)), entry).bind(expected.as_str());
    if write::run(landlord, publish).await? {
        return Ok(());
    }
    let (stored, obstacles) = read_stored(landlord, entry).await?;
    let obstacles = obstacles.ok_or_else(rules::no_tenant)?;
    match obstacles.status.as_str() {
        "active" if stored.is_some_and(|stored| rules::is_published(&stored, entry)) => Ok(()),
        status if status != expected.as_str() => Err(rules::other_status(status, expected)),
        _ => Err(obstacles.explain(entry)),
    }
}

const ADD: &str = fenced_write!(
    lock_tenant!(),
    "target AS (SELECT id FROM tenant), ",
    check_login!(),
    insert_entry!("ON CONFLICT (tenant_id, kind, host, port, database) DO NOTHING"),
    switch_logins!(),
);
const REPLACE: &str = fenced_write!(
    lock_tenant!(),
    "target AS (SELECT d.tenant_id AS id FROM tenantry.tenant_databases d, tenant
        WHERE d.tenant_id = $3 AND d.kind = $4 AND d.host = $7 AND d.port = $8 AND d.database = $9
          AND d.generation = $17 FOR NO KEY UPDATE OF d), ",
    check_login!(),
    "done AS (UPDATE tenantry.tenant_databases d
        SET driver = $5, server = $6, login = $10, roles = $11, credential = $12, generation = $13, status = $14,
            settings = $15, schema_state = $16, updated_at = now(),
            dropped_at = CASE WHEN $14 = 'dropped' THEN coalesce(d.dropped_at, now()) END
        FROM go
        WHERE d.tenant_id = go.id AND d.kind = $4 AND d.host = $7 AND d.port = $8 AND d.database = $9
        RETURNING d.tenant_id AS id)",
    switch_logins!(),
);

pub(super) async fn put(
    landlord: &LandlordPool, expected: Option<Generation>, entry: &TenantDatabase, writer: Option<FencingToken>,
) -> Result<(), StoreError> {
    rules::check_replacement(expected, entry)?;
    let put = match expected {
        None => bind_entry(write::statement(ADD, writer), entry),
        Some(generation) => bind_entry(write::statement(REPLACE, writer), entry).bind(generation.0),
    };
    if write::run(landlord, put).await? {
        return Ok(());
    }
    let (stored, obstacles) = read_stored(landlord, entry).await?;
    let obstacles = obstacles.ok_or_else(rules::no_tenant)?;
    match stored {
        Some(stored) if stored == *entry => Ok(()),
        Some(stored) if Some(stored.generation) != expected => Err(rules::other_generation(stored.generation)),
        None if expected.is_some() => Err(rules::no_entry()),
        _ => Err(obstacles.explain(entry)),
    }
}

const REPLACE_LOGIN: &str = fenced_write!(
    lock_tenant!(),
    "target AS (SELECT d.tenant_id AS id FROM tenantry.tenant_databases d, tenant
        WHERE d.tenant_id = $3 AND d.kind = $4 AND d.host = $7 AND d.port = $8 AND d.database = $9
          AND d.generation = $17 AND d.status = $14 FOR NO KEY UPDATE OF d), ",
    check_login!(),
    "done AS (UPDATE tenantry.tenant_databases d
        SET login = $10, credential = $12, generation = $13, updated_at = now()
        FROM go
        WHERE d.tenant_id = go.id AND d.kind = $4 AND d.host = $7 AND d.port = $8 AND d.database = $9
        RETURNING d.tenant_id AS id)",
    switch_logins!(),
);

pub(super) async fn replace_login(
    landlord: &LandlordPool, expected: Generation, entry: &TenantDatabase, writer: FencingToken,
) -> Result<(), StoreError> {
    rules::check_replacement(Some(expected), entry)?;
    let replace = bind_entry(write::statement(REPLACE_LOGIN, Some(writer)), entry).bind(expected.0);
    if write::run(landlord, replace).await? {
        return Ok(());
    }
    let (stored, obstacles) = read_stored(landlord, entry).await?;
    let obstacles = obstacles.ok_or_else(rules::no_tenant)?;
    match stored {
        Some(stored) if rules::has_same_login(&stored, entry) => Ok(()),
        Some(stored) if stored.generation != expected => Err(rules::other_generation(stored.generation)),
        Some(stored) if stored.status != entry.status => Err(rules::other_entry_status(stored.status)),
        None => Err(rules::no_entry()),
        _ => Err(obstacles.explain(entry)),
    }
}

const RECORD_SCHEMA: &str = fenced_write!(
    "done AS (UPDATE tenantry.tenant_databases d SET schema_state = $4, updated_at = now() FROM fence
        WHERE d.tenant_id = $3 AND d.kind = 'primary' AND d.status <> 'dropped' AND d.schema_state <> $4
        RETURNING d.tenant_id AS id)"
);

pub(super) async fn record_schema(
    landlord: &LandlordPool, tenant: TenantId, state: &str, writer: FencingToken,
) -> Result<(), StoreError> {
    let record = write::statement(RECORD_SCHEMA, Some(writer)).bind(tenant.as_uuid()).bind(state);
    write::run(landlord, record).await.map(drop)
}

const STORED: &str =
    "SELECT tenant_id, kind, driver, server, host, port, database, login, roles, credential, generation,
        status, settings, schema_state
    FROM tenantry.tenant_databases WHERE tenant_id = $1 AND kind = $2 AND host = $3 AND port = $4 AND database = $5";
const OBSTACLES: &str = "SELECT t.status,
    EXISTS (SELECT FROM tenantry.tenant_database_users u
        WHERE u.server = $2 AND u.role = $3 AND u.tenant_id = $1 AND u.database = $4 AND u.status <> 'dropped') AS login,
    EXISTS (SELECT FROM tenantry.tenant_databases d
        WHERE d.tenant_id = $1 AND d.kind = 'primary' AND d.status <> 'dropped'
          AND (d.host, d.port, d.database) <> ($5, $6, $4)) AS primary
    FROM tenantry.tenants t WHERE t.id = $1";

/// The state that can be the reason for a refused write, as [`OBSTACLES`] reads it.
#[derive(sqlx::FromRow)]
struct Obstacles {
    status: String,
    /// Whether the entry's login exists.
    #[sqlx(rename = "login")]
    has_login: bool,
    /// Whether the tenant has another primary entry in use.
    #[sqlx(rename = "primary")]
    has_other_primary: bool,
}

impl Obstacles {
    /// The error for a write that neither the status nor the generation explains.
    fn explain(&self, entry: &TenantDatabase) -> StoreError {
        if self.status == "deleted" {
            rules::no_tenant()
        } else if rules::is_active_managed_primary(entry) && !self.has_login {
            rules::no_login(entry)
        } else if rules::is_primary(entry) && self.has_other_primary {
            rules::second_primary()
        } else {
            write::concurrent_change()
        }
    }
}

/// Reads the stored entry, and the possible obstacles if the tenant exists.
async fn read_stored(
    landlord: &LandlordPool, entry: &TenantDatabase,
) -> Result<(Option<TenantDatabase>, Option<Obstacles>), StoreError> {
    let (tenant, port) = (entry.tenant.as_uuid(), i32::from(entry.port));
    let stored = sqlx::query(STORED).bind(tenant).bind(entry.kind.as_str()).bind(&entry.host).bind(port);
    let stored = stored.bind(entry.database.as_str()).fetch_optional(landlord).await?;
    let obstacles = sqlx::query_as(OBSTACLES)
        .bind(tenant)
        .bind(entry.server.as_ref().map(AsRef::as_ref))
        .bind(entry.login.as_str());
    let obstacles =
        obstacles.bind(entry.database.as_str()).bind(&entry.host).bind(port).fetch_optional(landlord).await?;
    Ok((stored.as_ref().map(rows::parse_database).transpose()?, obstacles))
}

fn bind_entry<'q>(statement: Statement<'q>, entry: &'q TenantDatabase) -> Statement<'q> {
    statement
        .bind(entry.tenant.as_uuid())
        .bind(entry.kind.as_str())
        .bind(entry.driver.as_str())
        .bind(entry.server.as_ref().map(AsRef::<str>::as_ref))
        .bind(&entry.host)
        .bind(i32::from(entry.port))
        .bind(entry.database.as_str())
        .bind(entry.login.as_str())
        .bind(entry.roles.as_ref().map(Json))
        .bind(Json(&entry.credential))
        .bind(entry.generation.0)
        .bind(entry.status.as_str())
        .bind(Json(&entry.settings))
        .bind(&entry.schema_state)
}
