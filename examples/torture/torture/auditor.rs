//! Checks the landlord and both servers after a run.
//!
//! The auditor reads tables and catalogs with its own SQL, so an error in the crate's queries cannot hide a violation.
//! It uses the crate only to find a tenant's entry and to open its password. Each function returns findings; an empty
//! list means that everything is as it must be.
use super::AnyError;
use super::lane::{Lane, PREFIX, superuser};
use super::saga::Saga;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection};
use tenantry::registry::TenantRegistry;
use tenantry::sqlx;

/// Violations as text for the report. Empty if there are none.
pub(crate) type Findings = Vec<String>;

/// Whether a tenant exists, read when no operation is open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TenantState {
    Nothing,
    Tenant { status: String },
}

pub(crate) async fn tenant_state(lane: &Lane, slug: &str) -> Result<TenantState, AnyError> {
    const STATUS: &str = "SELECT status FROM tenantry.tenants WHERE slug = $1 AND status <> 'deleted'";
    let status: Option<String> = sqlx::query_scalar(STATUS).bind(slug).fetch_optional(&lane.landlord).await?;
    Ok(status.map_or(TenantState::Nothing, |status| TenantState::Tenant { status }))
}

/// Checks what must hold after every run, in the landlord and on both servers.
pub(crate) async fn audit(lane: &Lane) -> Result<Findings, AnyError> {
    let mut found = audit_landlord(lane).await?;
    for name in ["near", "far"] {
        let mut server = superuser(lane.server(name)).await?;
        // PostgreSQL needs a moment to end the sessions of a killed client, so this check is repeated for two seconds.
        let mut wrong = audit_server(lane, name, &mut server).await?;
        for _ in 0..100 {
            if wrong.is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            wrong = audit_server(lane, name, &mut server).await?;
        }
        found.extend(wrong);
        server.close().await?;
    }
    Ok(found)
}

/// Rows of the landlord that contradict each other or belong to an operation that has ended.
async fn audit_landlord(lane: &Lane) -> Result<Findings, AnyError> {
    const WRONG: &str = "WITH alive AS (SELECT id, slug, status FROM tenantry.tenants WHERE status <> 'deleted')
        SELECT 'a tenant is in an intermediate status: ' || slug || ' ' || status
            FROM alive WHERE status IN ('provisioning', 'purging')
        UNION ALL SELECT 'a tenant has not exactly one active primary entry: ' || slug FROM alive
            WHERE 1 <> (SELECT count(*) FROM tenantry.tenant_databases d
            WHERE d.tenant_id = alive.id AND d.status = 'active' AND d.kind = 'primary')
        UNION ALL SELECT 'a tenant has not exactly one active login: ' || slug FROM alive WHERE 1 <> (SELECT count(*)
            FROM tenantry.tenant_database_users u WHERE u.tenant_id = alive.id AND u.status = 'active')
        UNION ALL SELECT 'a tenant has no placement: ' || slug FROM alive
            WHERE NOT EXISTS (SELECT FROM tenantry.placements p WHERE p.tenant_id = alive.id)
        UNION ALL SELECT 'a tenant has no login secret: ' || slug FROM alive
            WHERE NOT EXISTS (SELECT FROM tenantry.credentials c
            WHERE c.owner = 'tenant:' || alive.id AND c.purpose = 'login')
        UNION ALL SELECT 'a placement without a tenant: ' || database FROM tenantry.placements
            WHERE tenant_id NOT IN (SELECT id FROM alive)
        UNION ALL SELECT 'an entry without a tenant: ' || database FROM tenantry.tenant_databases
            WHERE status <> 'dropped' AND tenant_id NOT IN (SELECT id FROM alive)
        UNION ALL SELECT 'a login without a tenant: ' || role FROM tenantry.tenant_database_users
            WHERE status <> 'dropped' AND tenant_id NOT IN (SELECT id FROM alive)
        UNION ALL SELECT 'a secret without a tenant: ' || owner || ' ' || purpose FROM tenantry.credentials
            WHERE owner LIKE 'tenant:%' AND substr(owner, 8)::uuid NOT IN (SELECT id FROM alive)
        UNION ALL SELECT 'a token without a tenant: ' || email FROM tenantry.setup_tokens
            WHERE tenant_id NOT IN (SELECT id FROM alive)
        UNION ALL SELECT 'a link is claimed but not used: ' || purpose FROM tenantry.setup_tokens
            WHERE claimed_at IS NOT NULL AND used_at IS NULL
        UNION ALL SELECT 'the new password of a link was not deleted: ' || owner FROM tenantry.credentials
            WHERE purpose = 'new_password'
        UNION ALL SELECT 'a lane is still taken: ' || subject FROM tenantry.lanes
            WHERE change IS NOT NULL OR fence IS NOT NULL
        UNION ALL SELECT 'an operation is still open: ' || kind || ' ' || status FROM tenantry.operations
            WHERE status NOT IN ('done', 'undone')
        UNION ALL SELECT 'the server''s count of tenants is wrong: ' || name FROM tenantry.database_servers s
            WHERE tenants <> (SELECT count(*) FROM tenantry.placements p WHERE p.server = s.name)";
    Ok(sqlx::query_scalar(WRONG).fetch_all(&lane.landlord).await?)
}

/// Compares the databases, roles and sessions on a server with those that the landlord's entries require.
async fn audit_server(lane: &Lane, name: &str, server: &mut PgConnection) -> Result<Findings, AnyError> {
    const EXPECTED: &str = "SELECT d.database, d.roles->>'owner', d.roles->>'app', d.login, t.status
        FROM tenantry.tenant_databases d JOIN tenantry.tenants t ON t.id = d.tenant_id
        WHERE d.status = 'active' AND d.server = $1";
    let expected: Vec<(String, String, String, String, String)> =
        sqlx::query_as(EXPECTED).bind(name).fetch_all(&lane.landlord).await?;
    let mut found = vec![];
    let mut present = list_objects(server).await?;
    for (database, owner, app, login, status) in &expected {
        let refused = if status == "active" { "" } else { " NOLOGIN" };
        let closed = if status == "archived" { " closed" } else { "" };
        let expected_objects = [
            format!("database {database}{closed}"),
            format!("role {owner} NOLOGIN"),
            format!("role {app} NOLOGIN"),
            format!("role {login}{refused} as {app}"),
        ];
        for object in expected_objects {
            match present.iter().position(|thing| *thing == object) {
                Some(at) => drop(present.swap_remove(at)),
                None => found.push(format!("server {name}: missing: {object}")),
            }
        }
    }
    found.extend(present.into_iter().map(|thing| format!("server {name}: left behind or changed: {thing}")));
    found.extend(find_unexpected_access(server, &expected).await?);
    Ok(found)
}

/// Finds roles that can connect to a tenant's database but must not. Allowed are superusers, the provisioner's two
/// logins, and the tenant's own login if the tenant is active.
async fn find_unexpected_access(
    server: &mut PgConnection, expected: &[(String, String, String, String, String)],
) -> Result<Findings, AnyError> {
    const ENTRANTS: &str = "SELECT r.rolname::text FROM pg_database d, pg_roles r
        WHERE d.datname = $1 AND d.datallowconn AND r.rolcanlogin AND NOT r.rolsuper
          AND has_database_privilege(r.oid, d.oid, 'CONNECT') AND r.rolname <> ALL($2)";
    let mut found = vec![];
    for (database, _, _, login, status) in expected {
        let mut allowed = vec![format!("{PREFIX}_blue"), format!("{PREFIX}_green")];
        if status == "active" {
            allowed.push(login.clone());
        }
        let entrants: Vec<String> =
            sqlx::query_scalar(ENTRANTS).bind(database).bind(allowed).fetch_all(&mut *server).await?;
        found.extend(
            entrants.into_iter().map(|role| format!("role {role} can connect to {database}, whose tenant is {status}")),
        );
    }
    Ok(found)
}

/// Lists the databases and roles of tenants on a server, and everything that must not be there: memberships of the
/// admin role, rights of PUBLIC, sessions of workers and of refused logins, and locks of workers.
async fn list_objects(server: &mut PgConnection) -> Result<Vec<String>, AnyError> {
    const THINGS: &str = "WITH ours AS (SELECT oid, rolname, rolcanlogin, rolconfig FROM pg_roles
            WHERE shobj_description(oid, 'pg_authid') LIKE 'tenantry %' AND rolname NOT LIKE $1 || '\\_%')
        SELECT 'database ' || d.datname || CASE WHEN d.datallowconn THEN '' ELSE ' closed' END
            FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba
            WHERE r.rolname = $1 || '_admin' AND d.datname <> $1 || '_maintenance'
        UNION ALL SELECT 'role ' || rolname || CASE WHEN rolcanlogin THEN '' ELSE ' NOLOGIN' END
            || coalesce(' as ' || (SELECT substr(c, 6) FROM unnest(rolconfig) c WHERE c LIKE 'role=%'), '') FROM ours
        UNION ALL SELECT 'the admin role acts as ' || rolname FROM ours
            WHERE rolcanlogin AND pg_has_role($1 || '_admin', oid, 'USAGE')
        UNION ALL SELECT 'PUBLIC may enter ' || d.datname FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba
            WHERE r.rolname = $1 || '_admin' AND has_database_privilege('public', d.oid, 'CONNECT')
        UNION ALL SELECT 'session ' || application_name || ' of ' || usename FROM pg_stat_activity
            WHERE application_name LIKE 'tenantry/%'
        UNION ALL SELECT 'session of the refused ' || usename FROM pg_stat_activity a JOIN ours ON ours.oid = a.usesysid
            WHERE NOT ours.rolcanlogin
        UNION ALL SELECT 'a worker''s lock' FROM pg_locks l JOIN pg_database d ON d.oid = l.database
            WHERE l.locktype = 'advisory' AND d.datname = $1 || '_maintenance'";
    Ok(sqlx::query_scalar(THINGS).bind(PREFIX).fetch_all(server).await?)
}

/// Checks that the login of an active tenant works, sees exactly its own rows, cannot write the ledger of migrations,
/// and cannot connect to another database.
pub(crate) async fn check_tenant(lane: &Lane, slug: &str, server: &str) -> Result<Findings, AnyError> {
    use secrecy::ExposeSecret;
    let tenant = lane.rescuer.registry().find(slug.into()).await?.ok_or("the tenant of the run does not exist")?;
    let entry =
        lane.rescuer.registry().primary(tenant.id()).await?.ok_or("the tenant of the run has no primary entry")?;
    let password = lane.rescuer.vault().open(&entry.credential).await?;
    let options = lane.server(server).admin_options().username(entry.login.as_str()).password(password.expose_secret());
    let mut found = vec![];
    let mut session = options.clone().database(entry.database.as_str()).connect().await?;
    session.execute("INSERT INTO notes (text) VALUES ('mine')").await?;
    const SEEN: &str = "SELECT (SELECT count(*) FROM notes), (SELECT count(*) FROM tenant_users),
        (SELECT count(*) FROM _sqlx_migrations)";
    let (notes, users, migrations): (i64, i64, i64) = sqlx::query_as(SEEN).fetch_one(&mut session).await?;
    if (notes, users, migrations) != (1, 1, 2) {
        found.push(format!(
            "tenant {slug} has {notes} notes, {users} users and {migrations} migrations; expected 1, 1 and 2"
        ));
    }
    if session.execute("DELETE FROM _sqlx_migrations").await.is_ok() {
        found.push(format!("the login of tenant {slug} can write the ledger of migrations"));
    }
    session.close().await?;
    const OTHERS: &str = "SELECT database FROM tenantry.tenant_databases
        WHERE status = 'active' AND server = $1 AND tenant_id <> $2 UNION SELECT 'torture_maintenance'";
    let others: Vec<String> =
        sqlx::query_scalar(OTHERS).bind(server).bind(tenant.id().as_uuid()).fetch_all(&lane.landlord).await?;
    if others.len() < 2 {
        found.push(format!("server {server} has no other tenant, so access to other databases was not checked"));
    }
    for other in others {
        if options.clone().database(&other).connect().await.is_ok() {
            found.push(format!("the login of tenant {slug} can connect to {other}"));
        }
    }
    Ok(found)
}

/// Checks that both of the provisioner's logins work with the secrets that the server's row names, and that no other
/// secrets of the server are stored.
pub(crate) async fn check_provisioner_logins(lane: &Lane, server: &str) -> Result<Findings, AnyError> {
    use secrecy::ExposeSecret;
    use tenantry::secret::CredentialId;
    const ROW: &str = "SELECT secret_version, blue, green FROM tenantry.database_servers WHERE name = $1";
    let (version, blue, green): (i64, String, String) =
        sqlx::query_as(ROW).bind(server).fetch_one(&lane.landlord).await?;
    const KEPT: &str = "SELECT count(*) FROM tenantry.credentials WHERE owner = 'server:' || $1";
    let kept: i64 = sqlx::query_scalar(KEPT).bind(server).fetch_one(&lane.landlord).await?;
    let mut found = vec![];
    if kept != 2 {
        found.push(format!("server {server} has {kept} secrets for its two provisioner logins"));
    }
    for login in [blue, green] {
        let id = CredentialId::provisioner(&server.parse()?, &login.parse()?, version);
        let password = lane.rescuer.vault().open(&id).await?;
        let options = lane.server(server).admin_options().username(&login).password(password.expose_secret());
        match options.database(&format!("{PREFIX}_maintenance")).connect().await {
            Ok(session) => session.close().await?,
            Err(error) => found.push(format!("the provisioner login {login} cannot connect: {error}")),
        }
    }
    Ok(found)
}

/// Checks that all secrets are wrapped by the same key, so that the old key can be removed.
pub(crate) async fn check_single_key(lane: &Lane) -> Result<Findings, AnyError> {
    const KEYS: &str = "SELECT DISTINCT key_id FROM tenantry.credentials WHERE purpose <> 'key_check' ORDER BY 1";
    let keys: Vec<String> = sqlx::query_scalar(KEYS).fetch_all(&lane.landlord).await?;
    Ok(if keys.len() == 1 {
        vec![]
    } else {
        vec![format!("after the rekey, secrets are wrapped by the keys {keys:?}; expected exactly one key")]
    })
}

/// Drops the maintenance database and the roles of a set-up, which stay on the server when it is removed from the
/// landlord.
pub(crate) async fn drop_server_objects(lane: &Lane, name: &str) -> Result<(), AnyError> {
    let mut server = superuser(&lane.near).await?;
    let quoted = |what: &str| format!("\"torture_{name}{what}\"");
    let mut statements = vec![format!("DROP DATABASE IF EXISTS {}", quoted("_maintenance"))];
    statements.extend(["_blue", "_green", "_admin"].map(|role| format!("DROP ROLE IF EXISTS {}", quoted(role))));
    for statement in statements {
        #[expect(clippy::disallowed_methods, reason = "the names are the driver's own, and quoted")]
        server.execute(sqlx::AssertSqlSafe(statement)).await?;
    }
    Ok(server.close().await?)
}

/// Checks that the tenant is in the status before or the status after the saga, and in the status before only if the
/// saga was never begun or may be undone.
pub(crate) fn check_end_state(saga: Saga, state: &TenantState, has_begun: bool) -> Findings {
    let status = match state {
        TenantState::Nothing => "nothing",
        TenantState::Tenant { status } => status,
    };
    let (before, after) = match saga.base() {
        Saga::Suspend => ("active", "suspended"),
        Saga::Activate => ("suspended", "active"),
        Saga::Archive => ("active", "archived"),
        Saga::Restore => ("archived", "active"),
        Saga::Purge => ("active", "nothing"),
        Saga::Migrate
        | Saga::Rotate
        | Saga::RotateServer
        | Saga::CredentialsLink
        | Saga::PasswordLink
        | Saga::Rekey => ("active", "active"),
        _ => ("nothing", "active"),
    };
    // A purge and a provisioning may be undone. All other sagas are only continued once they have begun.
    let may_be_undone = saga.is_provision() || saga.base() == Saga::Purge || before == after;
    if status == after || (status == before && (!has_begun || may_be_undone)) {
        return vec![];
    }
    let note = if has_begun { "" } else { " (the operation was never begun)" };
    vec![format!("the tenant's status is {status}; expected {after}, or {before} if nothing was done{note}")]
}

/// Whether the landlord has a record of the saga's operation, open or ended.
pub(crate) async fn has_begun(lane: &Lane, saga: Saga, slug: &str) -> Result<bool, AnyError> {
    const BEGUN: &str = "SELECT EXISTS (SELECT FROM tenantry.operations WHERE kind = $1 AND idempotency_key = $2)";
    Ok(sqlx::query_scalar(BEGUN).bind(saga.kind()).bind(slug).fetch_one(&lane.landlord).await?)
}

/// A position in the servers' logs and in the table of recorded writes. Writes of a stale worker come after it.
pub(crate) struct WriteMark {
    logs: Vec<(String, u64)>,
    writes: i64,
}
impl WriteMark {
    pub(crate) async fn now(lane: &Lane) -> Result<Self, AnyError> {
        let last = sqlx::query_scalar("SELECT coalesce(max(n), 0) FROM torture.writes");
        let writes = last.fetch_one(&lane.landlord).await?;
        let logs = [&lane.near, &lane.far].into_iter().map(|server| {
            let log = log_of(server)?;
            let length = std::fs::metadata(&log)?.len();
            Ok((log, length))
        });
        Ok(Self { logs: logs.collect::<Result<_, AnyError>>()?, writes })
    }
    /// Finds writes since the mark: of the child in the landlord, and of any worker on the servers. Call it when no
    /// worker but the stale child has run since the mark.
    pub(crate) async fn find_stale_writes(&self, lane: &Lane) -> Result<Findings, AnyError> {
        const WRITES: &str = "SELECT what FROM torture.writes WHERE n > $1 AND who = 'torture child'";
        let landlord: Vec<String> = sqlx::query_scalar(WRITES).bind(self.writes).fetch_all(&lane.landlord).await?;
        let mut found: Findings =
            landlord.into_iter().map(|w| format!("a stale worker wrote to the landlord: {w}")).collect();
        for (log, from) in &self.logs {
            let log = std::fs::read(log)?;
            let text = String::from_utf8_lossy(log.get(*from as usize..).unwrap_or_default()).into_owned();
            let stale = text.lines().filter(|l| l.contains(" tenantry/") && is_write(l));
            found.extend(stale.map(|l| format!("a stale worker wrote on a server: {l}")));
        }
        Ok(found)
    }
}

fn log_of(server: &tenantry::testing::TestServer) -> Result<String, AnyError> {
    match server.kind() {
        tenantry::testing::server::ServerKind::Local { directory, .. } => {
            Ok(directory.join("server.log").to_string_lossy().into_owned())
        }
        _ => Err("the servers must be started from local binaries, because the auditor reads their logs".into()),
    }
}

fn is_write(line: &str) -> bool {
    const WRITES: [&str; 10] =
        ["CREATE ", "ALTER ", "DROP ", "GRANT ", "REVOKE ", "INSERT ", "UPDATE ", "DELETE ", "COMMENT ", "REASSIGN "];
    let Some((_, statement)) = line.split_once("statement: ").or_else(|| line.split_once("execute ")) else {
        return false;
    };
    WRITES.iter().any(|w| statement.contains(w))
}
