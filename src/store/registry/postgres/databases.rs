use super::rows;
use super::write::{self, Statement, changed, fenced};
use crate::directory::{Generation, TenantDatabase};
use crate::error::StoreError;
use crate::operation::FencingToken;
use crate::store::registry::rules;
use crate::tenant::{TenantId, TenantStatus};
use sqlx::PgPool;
use sqlx::types::Json;

const OF: &str = "SELECT tenant_id, kind, driver, server, host, port, database, login, roles, credential, generation,
        status, settings
    FROM tenantry.tenant_databases WHERE tenant_id = $1 AND status <> 'dropped'
    ORDER BY array_position('{primary,replica,backup}', kind), host COLLATE \"C\", port, database COLLATE \"C\"";

pub(super) async fn of(landlord: &PgPool, tenant: TenantId) -> Result<Vec<TenantDatabase>, StoreError> {
    sqlx::query(OF).bind(tenant.as_uuid()).fetch_all(landlord).await?.iter().map(rows::database).collect()
}

// The parameters of an entry are $3 to $15 in every statement, see `with_entry`.

/// Whether the entry brings its login with it: an active primary on a server of ours.
macro_rules! brings_login {
    () => {
        "($4 = 'primary' AND $14 = 'active' AND $6::text IS NOT NULL)"
    };
}
/// From `target`, what the caller has locked already: `go` has its row if the login is there, and keeps it there.
macro_rules! go {
    () => {
        concat!(
            "login AS (SELECT u.role FROM tenantry.tenant_database_users u, target
                WHERE u.server = $6 AND u.role = $10 AND u.tenant_id = $3 AND u.database = $9 AND u.status <> 'dropped'
                FOR UPDATE OF u),
            go AS (SELECT target.id FROM target WHERE NOT ",
            brings_login!(),
            " OR EXISTS (SELECT FROM login)), "
        )
    };
}
/// After `done`: the entry's login becomes active, the one it replaces retires.
macro_rules! logins {
    () => {
        concat!(
            ", logins AS (UPDATE tenantry.tenant_database_users u
                SET status = CASE WHEN u.role = $10 THEN 'active' ELSE 'retiring' END, updated_at = now(),
                    attempts = 0, retry_at = NULL, metadata = ",
            changed!(),
            "
                FROM done
                WHERE ",
            brings_login!(),
            " AND u.tenant_id = $3 AND u.server = $6 AND u.database = $9
                AND (u.role = $10 AND u.status IN ('pending', 'retiring') OR u.role <> $10 AND u.status = 'active'))"
        )
    };
}
macro_rules! insert {
    ($conflict:literal) => {
        concat!(
            "done AS (INSERT INTO tenantry.tenant_databases AS d (tenant_id, kind, driver, server, host, port, database,
                login, roles, credential, generation, status, settings, dropped_at)
            SELECT $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, CASE WHEN $14 = 'dropped' THEN now() END
            FROM go ",
            $conflict,
            " RETURNING d.tenant_id AS id)"
        )
    };
}
/// A deleted tenant takes history only.
macro_rules! tenant {
    () => {
        "tenant AS (SELECT t.id FROM tenantry.tenants t, fence
            WHERE t.id = $3 AND (t.status <> 'deleted' OR $14 = 'dropped') FOR SHARE OF t), "
    };
}

const PUBLISH: &str = fenced!(
    "target AS (SELECT t.id FROM tenantry.tenants t, fence
        WHERE t.id = $3 AND t.status = $16 FOR NO KEY UPDATE OF t), ",
    go!(),
    insert!(
        "ON CONFLICT (tenant_id, kind, host, port, database) DO UPDATE
            SET driver = $5, server = $6, login = $10, roles = $11, credential = $12, generation = $13, status = $14,
                settings = $15, updated_at = now(), dropped_at = CASE WHEN $14 = 'dropped' THEN now() END"
    ),
    logins!(),
    ", tenant AS (UPDATE tenantry.tenants t SET status = 'active', updated_at = now() FROM done WHERE t.id = done.id)"
);

pub(super) async fn publish(
    landlord: &PgPool, expected: TenantStatus, entry: &TenantDatabase, writer: FencingToken,
) -> Result<(), StoreError> {
    rules::publication(expected, entry)?;
    let publish = with_entry(write::statement(PUBLISH, Some(writer)), entry).bind(expected.as_str());
    if write::run(landlord, publish).await? {
        return Ok(());
    }
    let (stored, why) = stored(landlord, entry).await?;
    let why = why.ok_or_else(rules::no_tenant)?;
    match why.status.as_str() {
        "active" if stored.as_ref() == Some(entry) => Ok(()),
        status if status != expected.as_str() => Err(rules::other_status(status, expected)),
        _ => Err(why.explain(entry)),
    }
}

const ADD: &str = fenced!(
    tenant!(),
    "target AS (SELECT id FROM tenant), ",
    go!(),
    insert!("ON CONFLICT (tenant_id, kind, host, port, database) DO NOTHING"),
    logins!(),
);
const REPLACE: &str = fenced!(
    tenant!(),
    "target AS (SELECT d.tenant_id AS id FROM tenantry.tenant_databases d, tenant
        WHERE d.tenant_id = $3 AND d.kind = $4 AND d.host = $7 AND d.port = $8 AND d.database = $9
          AND d.generation = $16 FOR NO KEY UPDATE OF d), ",
    go!(),
    "done AS (UPDATE tenantry.tenant_databases d
        SET driver = $5, server = $6, login = $10, roles = $11, credential = $12, generation = $13, status = $14,
            settings = $15, updated_at = now(),
            dropped_at = CASE WHEN $14 = 'dropped' THEN coalesce(d.dropped_at, now()) END
        FROM go
        WHERE d.tenant_id = go.id AND d.kind = $4 AND d.host = $7 AND d.port = $8 AND d.database = $9
        RETURNING d.tenant_id AS id)",
    logins!(),
);

pub(super) async fn put(
    landlord: &PgPool, expected: Option<Generation>, entry: &TenantDatabase, writer: Option<FencingToken>,
) -> Result<(), StoreError> {
    rules::replacement(expected, entry)?;
    let put = match expected {
        None => with_entry(write::statement(ADD, writer), entry),
        Some(generation) => with_entry(write::statement(REPLACE, writer), entry).bind(generation.0),
    };
    if write::run(landlord, put).await? {
        return Ok(());
    }
    let (stored, why) = stored(landlord, entry).await?;
    let why = why.ok_or_else(rules::no_tenant)?;
    match stored {
        Some(stored) if stored == *entry => Ok(()),
        Some(stored) if Some(stored.generation) != expected => Err(rules::other_generation(stored.generation)),
        None if expected.is_some() => Err(rules::no_entry()),
        _ => Err(why.explain(entry)),
    }
}

const REPLACE_LOGIN: &str = fenced!(
    tenant!(),
    "target AS (SELECT d.tenant_id AS id FROM tenantry.tenant_databases d, tenant
        WHERE d.tenant_id = $3 AND d.kind = $4 AND d.host = $7 AND d.port = $8 AND d.database = $9
          AND d.generation = $16 AND d.status = $14 FOR NO KEY UPDATE OF d), ",
    go!(),
    "done AS (UPDATE tenantry.tenant_databases d
        SET login = $10, credential = $12, generation = $13, updated_at = now()
        FROM go
        WHERE d.tenant_id = go.id AND d.kind = $4 AND d.host = $7 AND d.port = $8 AND d.database = $9
        RETURNING d.tenant_id AS id)",
    logins!(),
);

pub(super) async fn replace_login(
    landlord: &PgPool, expected: Generation, entry: &TenantDatabase, writer: FencingToken,
) -> Result<(), StoreError> {
    rules::replacement(Some(expected), entry)?;
    let replace = with_entry(write::statement(REPLACE_LOGIN, Some(writer)), entry).bind(expected.0);
    if write::run(landlord, replace).await? {
        return Ok(());
    }
    let (stored, why) = stored(landlord, entry).await?;
    let why = why.ok_or_else(rules::no_tenant)?;
    match stored {
        Some(stored) if rules::same_login(&stored, entry) => Ok(()),
        Some(stored) if stored.generation != expected => Err(rules::other_generation(stored.generation)),
        Some(stored) if stored.status != entry.status => Err(rules::entry_status(stored.status)),
        None => Err(rules::no_entry()),
        _ => Err(why.explain(entry)),
    }
}

const STORED: &str =
    "SELECT tenant_id, kind, driver, server, host, port, database, login, roles, credential, generation,
        status, settings
    FROM tenantry.tenant_databases WHERE tenant_id = $1 AND kind = $2 AND host = $3 AND port = $4 AND database = $5";
const WHY: &str = "SELECT t.status,
    EXISTS (SELECT FROM tenantry.tenant_database_users u
        WHERE u.server = $2 AND u.role = $3 AND u.tenant_id = $1 AND u.database = $4 AND u.status <> 'dropped') AS login,
    EXISTS (SELECT FROM tenantry.tenant_databases d
        WHERE d.tenant_id = $1 AND d.kind = 'primary' AND d.status <> 'dropped'
          AND (d.host, d.port, d.database) <> ($5, $6, $4)) AS primary
    FROM tenantry.tenants t WHERE t.id = $1";

#[derive(sqlx::FromRow)]
struct Why {
    status: String,
    login: bool,
    primary: bool,
}

impl Why {
    fn explain(&self, entry: &TenantDatabase) -> StoreError {
        if self.status == "deleted" {
            rules::no_tenant()
        } else if rules::brings_login(entry) && !self.login {
            rules::no_login(entry)
        } else if rules::is_primary(entry) && self.primary {
            rules::second_primary()
        } else {
            write::gone()
        }
    }
}

async fn stored(
    landlord: &PgPool, entry: &TenantDatabase,
) -> Result<(Option<TenantDatabase>, Option<Why>), StoreError> {
    let (tenant, port) = (entry.tenant.as_uuid(), i32::from(entry.port));
    let stored = sqlx::query(STORED).bind(tenant).bind(entry.kind.as_str()).bind(&entry.host).bind(port);
    let stored = stored.bind(entry.database.as_str()).fetch_optional(landlord).await?;
    let why =
        sqlx::query_as(WHY).bind(tenant).bind(entry.server.as_ref().map(AsRef::as_ref)).bind(entry.login.as_str());
    let why = why.bind(entry.database.as_str()).bind(&entry.host).bind(port).fetch_optional(landlord).await?;
    Ok((stored.as_ref().map(rows::database).transpose()?, why))
}

fn with_entry<'q>(statement: Statement<'q>, entry: &'q TenantDatabase) -> Statement<'q> {
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
}
