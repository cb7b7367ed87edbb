//! Looks with SQL of its own at what is there, and shares no code with the crate.
use super::Anything;
use super::lane::{Lane, PREFIX, superuser};
use super::saga::Saga;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection};
use tenantry::registry::TenantRegistryExt;
use tenantry::sqlx;

/// What it has found wrong; empty: nothing.
pub(crate) type Findings = Vec<String>;

/// What stands of a tenant, once nothing is open any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    Nothing,
    Tenant { status: String },
}

pub(crate) async fn stands(lane: &Lane, slug: &str) -> Result<Stands, Anything> {
    const STATUS: &str = "SELECT status FROM tenantry.tenants WHERE slug = $1 AND status <> 'deleted'";
    let status: Option<String> = sqlx::query_scalar(STATUS).bind(slug).fetch_optional(&lane.landlord).await?;
    Ok(status.map_or(Stands::Nothing, |status| Stands::Tenant { status }))
}

/// Everything that must hold whatever has happened, on both servers and in the landlord.
pub(crate) async fn audit(lane: &Lane) -> Result<Findings, Anything> {
    let mut found = landlord(lane).await?;
    for name in ["near", "far"] {
        let mut server = superuser(lane.server(name)).await?;
        // What died with its client is on its way out.
        let mut wrong = on_server(lane, name, &mut server).await?;
        for _ in 0..100 {
            if wrong.is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            wrong = on_server(lane, name, &mut server).await?;
        }
        found.extend(wrong);
        server.close().await?;
    }
    Ok(found)
}

async fn landlord(lane: &Lane) -> Result<Findings, Anything> {
    const WRONG: &str = "WITH alive AS (SELECT id, slug, status FROM tenantry.tenants WHERE status <> 'deleted')
        SELECT 'status of ' || slug || ': ' || status FROM alive WHERE status IN ('provisioning', 'purging')
        UNION ALL SELECT 'no entry: ' || slug FROM alive WHERE 1 <> (SELECT count(*) FROM tenantry.tenant_databases d
            WHERE d.tenant_id = alive.id AND d.status = 'active' AND d.kind = 'primary')
        UNION ALL SELECT 'no login: ' || slug FROM alive WHERE 1 <> (SELECT count(*)
            FROM tenantry.tenant_database_users u WHERE u.tenant_id = alive.id AND u.status = 'active')
        UNION ALL SELECT 'no place: ' || slug FROM alive
            WHERE NOT EXISTS (SELECT FROM tenantry.placements p WHERE p.tenant_id = alive.id)
        UNION ALL SELECT 'no secret: ' || slug FROM alive WHERE NOT EXISTS (SELECT FROM tenantry.credentials c
            WHERE c.owner = 'tenant:' || alive.id AND c.purpose = 'login')
        UNION ALL SELECT 'a place of nobody: ' || database FROM tenantry.placements
            WHERE tenant_id NOT IN (SELECT id FROM alive)
        UNION ALL SELECT 'an entry of nobody: ' || database FROM tenantry.tenant_databases
            WHERE status <> 'dropped' AND tenant_id NOT IN (SELECT id FROM alive)
        UNION ALL SELECT 'a login of nobody: ' || role FROM tenantry.tenant_database_users
            WHERE status <> 'dropped' AND tenant_id NOT IN (SELECT id FROM alive)
        UNION ALL SELECT 'a secret of nobody: ' || owner || ' ' || purpose FROM tenantry.credentials
            WHERE owner LIKE 'tenant:%' AND substr(owner, 8)::uuid NOT IN (SELECT id FROM alive)
        UNION ALL SELECT 'a token of nobody: ' || email FROM tenantry.setup_tokens
            WHERE tenant_id NOT IN (SELECT id FROM alive)
        UNION ALL SELECT 'a link is claimed by nobody: ' || purpose FROM tenantry.setup_tokens
            WHERE claimed_at IS NOT NULL AND used_at IS NULL
        UNION ALL SELECT 'a password is kept: ' || owner FROM tenantry.credentials WHERE purpose = 'new_password'
        UNION ALL SELECT 'a lane is taken: ' || subject FROM tenantry.lanes WHERE change IS NOT NULL OR fence IS NOT NULL
        UNION ALL SELECT 'open: ' || kind || ' ' || status FROM tenantry.operations WHERE status NOT IN ('done', 'undone')
        UNION ALL SELECT 'miscounted: ' || name FROM tenantry.database_servers s
            WHERE tenants <> (SELECT count(*) FROM tenantry.placements p WHERE p.server = s.name)";
    Ok(sqlx::query_scalar(WRONG).fetch_all(&lane.landlord).await?)
}

async fn on_server(lane: &Lane, name: &str, server: &mut PgConnection) -> Result<Findings, Anything> {
    const EXPECTED: &str = "SELECT d.database, d.roles->>'owner', d.roles->>'app', d.login, t.status
        FROM tenantry.tenant_databases d JOIN tenantry.tenants t ON t.id = d.tenant_id
        WHERE d.status = 'active' AND d.server = $1";
    let expected: Vec<(String, String, String, String, String)> =
        sqlx::query_as(EXPECTED).bind(name).fetch_all(&lane.landlord).await?;
    let mut found = vec![];
    let mut is = things(server).await?;
    for (database, owner, app, login, status) in &expected {
        let refused = if status == "active" { "" } else { " NOLOGIN" };
        let closed = if status == "archived" { " closed" } else { "" };
        let all = [
            format!("database {database}{closed}"),
            format!("role {owner} NOLOGIN"),
            format!("role {app} NOLOGIN"),
            format!("role {login}{refused} as {app}"),
        ];
        for one in all {
            match is.iter().position(|thing| *thing == one) {
                Some(at) => drop(is.swap_remove(at)),
                None => found.push(format!("{name}: missing: {one}")),
            }
        }
    }
    found.extend(is.into_iter().map(|thing| format!("{name}: left behind: {thing}")));
    found.extend(entrants(server, &expected).await?);
    Ok(found)
}

/// No role but superusers and the provisioner's two logins can enter the database of a tenant that is not active; nor can a
/// login that belongs to no open operation enter the one of an active tenant, but for its own.
async fn entrants(
    server: &mut PgConnection, expected: &[(String, String, String, String, String)],
) -> Result<Findings, Anything> {
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
        found.extend(entrants.into_iter().map(|role| format!("{role} can enter {database}, which is {status}")));
    }
    Ok(found)
}

/// Databases, roles, memberships and sessions of tenants, and locks of workers.
async fn things(server: &mut PgConnection) -> Result<Vec<String>, Anything> {
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

/// The tenant's login works, sees its own data, and gets in nowhere else.
pub(crate) async fn works(lane: &Lane, slug: &str, server: &str) -> Result<Findings, Anything> {
    use secrecy::ExposeSecret;
    let tenant = lane.rescuer.registry().find(slug.into()).await?.ok_or("no such tenant")?;
    let entry = lane.rescuer.registry().primary(tenant.id()).await?.ok_or("no entry")?;
    let password = lane.rescuer.vault().open(&entry.credential).await?;
    let options = lane.server(server).admin_options().username(entry.login.as_str()).password(password.expose_secret());
    let mut found = vec![];
    let mut session = options.clone().database(entry.database.as_str()).connect().await?;
    session.execute("INSERT INTO notes (text) VALUES ('mine')").await?;
    const SEEN: &str = "SELECT (SELECT count(*) FROM notes), (SELECT count(*) FROM tenant_users),
        (SELECT count(*) FROM _sqlx_migrations)";
    let (notes, users, migrations): (i64, i64, i64) = sqlx::query_as(SEEN).fetch_one(&mut session).await?;
    if (notes, users, migrations) != (1, 1, 2) {
        found.push(format!("{slug}: {notes} notes, {users} users, {migrations} migrations"));
    }
    if session.execute("DELETE FROM _sqlx_migrations").await.is_ok() {
        found.push(format!("{slug}: its login may write the ledger"));
    }
    session.close().await?;
    const OTHERS: &str = "SELECT database FROM tenantry.tenant_databases
        WHERE status = 'active' AND server = $1 AND tenant_id <> $2 UNION SELECT 'torture_maintenance'";
    let others: Vec<String> =
        sqlx::query_scalar(OTHERS).bind(server).bind(tenant.id().as_uuid()).fetch_all(&lane.landlord).await?;
    if others.len() < 2 {
        found.push("there is no neighbour".into());
    }
    for other in others {
        if options.clone().database(&other).connect().await.is_ok() {
            found.push(format!("{slug}: its login gets into {other}"));
        }
    }
    Ok(found)
}

/// Both of the provisioner's logins work with the secrets that the server's row names, and no others are kept.
pub(crate) async fn provisioners(lane: &Lane, server: &str) -> Result<Findings, Anything> {
    use secrecy::ExposeSecret;
    use tenantry::secret::CredentialId;
    const ROW: &str = "SELECT secret_version, blue, green FROM tenantry.database_servers WHERE name = $1";
    let (version, blue, green): (i64, String, String) =
        sqlx::query_as(ROW).bind(server).fetch_one(&lane.landlord).await?;
    const KEPT: &str = "SELECT count(*) FROM tenantry.credentials WHERE owner = 'server:' || $1";
    let kept: i64 = sqlx::query_scalar(KEPT).bind(server).fetch_one(&lane.landlord).await?;
    let mut found = vec![];
    if kept != 2 {
        found.push(format!("{server}: {kept} secrets of two logins"));
    }
    for login in [blue, green] {
        let id = CredentialId::provisioner(&server.parse()?, &login.parse()?, version);
        let password = lane.rescuer.vault().open(&id).await?;
        let options = lane.server(server).admin_options().username(&login).password(password.expose_secret());
        match options.database(&format!("{PREFIX}_maintenance")).connect().await {
            Ok(session) => session.close().await?,
            Err(error) => found.push(format!("{login} does not work: {error}")),
        }
    }
    Ok(found)
}

/// Every secret is wrapped by one key, whichever worker has ended it: none by the key that was to go.
pub(crate) async fn one_key(lane: &Lane) -> Result<Findings, Anything> {
    const KEYS: &str = "SELECT DISTINCT key_id FROM tenantry.credentials WHERE purpose <> 'key_check' ORDER BY 1";
    let keys: Vec<String> = sqlx::query_scalar(KEYS).fetch_all(&lane.landlord).await?;
    Ok(if keys.len() == 1 { vec![] } else { vec![format!("secrets are wrapped by {keys:?}")] })
}

/// What a set-up has made stays when the server is removed from the landlord: a DBA drops it.
pub(crate) async fn clear_server(lane: &Lane, name: &str) -> Result<(), Anything> {
    let mut server = superuser(&lane.near).await?;
    let quoted = |what: &str| format!("\"torture_{name}{what}\"");
    let mut statements = vec![format!("DROP DATABASE IF EXISTS {}", quoted("_maintenance"))];
    statements.extend(["_blue", "_green", "_admin"].map(|role| format!("DROP ROLE IF EXISTS {}", quoted(role))));
    for statement in statements {
        #[expect(clippy::disallowed_methods, reason = "names of the driver's own, quoted")]
        server.execute(sqlx::AssertSqlSafe(statement)).await?;
    }
    Ok(server.close().await?)
}

/// Before, or after: nothing in between.
pub(crate) fn ends(saga: Saga, stands: &Stands, begun: bool) -> Findings {
    let status = match stands {
        Stands::Nothing => "nothing",
        Stands::Tenant { status } => status,
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
    // A purge and a provisioning may be undone; the other sagas go forward once they have begun.
    let may_be_undone = saga.is_provision() || saga.base() == Saga::Purge || before == after;
    if status == after || (status == before && (!begun || may_be_undone)) {
        return vec![];
    }
    vec![format!("it stands at {status}: neither {before} nor {after}{}", if begun { "" } else { " (never begun)" })]
}

/// Whether the saga's operation was begun, and how many ended in which way: its history stays.
pub(crate) async fn begun(lane: &Lane, saga: Saga, slug: &str) -> Result<bool, Anything> {
    const BEGUN: &str = "SELECT EXISTS (SELECT FROM tenantry.operations WHERE kind = $1 AND idempotency_key = $2)";
    Ok(sqlx::query_scalar(BEGUN).bind(saga.kind()).bind(slug).fetch_one(&lane.landlord).await?)
}

/// Where the log and the journal of writes stand now: what a stale writer does comes after it.
pub(crate) struct Mark {
    logs: Vec<(String, u64)>,
    writes: i64,
}
impl Mark {
    pub(crate) async fn now(lane: &Lane) -> Result<Self, Anything> {
        let last = sqlx::query_scalar("SELECT coalesce(max(n), 0) FROM torture.writes");
        let writes = last.fetch_one(&lane.landlord).await?;
        let logs = [&lane.near, &lane.far].into_iter().map(|server| {
            let log = log_of(server)?;
            let length = std::fs::metadata(&log)?.len();
            Ok((log, length))
        });
        Ok(Self { logs: logs.collect::<Result<_, Anything>>()?, writes })
    }
    /// Writes of the child, and of any worker at the servers, since the mark.
    pub(crate) async fn stale_writes(&self, lane: &Lane) -> Result<Findings, Anything> {
        const WRITES: &str = "SELECT what FROM torture.writes WHERE n > $1 AND who = 'torture child'";
        let landlord: Vec<String> = sqlx::query_scalar(WRITES).bind(self.writes).fetch_all(&lane.landlord).await?;
        let mut found: Findings = landlord.into_iter().map(|w| format!("a stale write in the landlord: {w}")).collect();
        for (log, from) in &self.logs {
            let log = std::fs::read(log)?;
            let text = String::from_utf8_lossy(log.get(*from as usize..).unwrap_or_default()).into_owned();
            let stale = text.lines().filter(|l| l.contains(" tenantry/") && is_write(l));
            found.extend(stale.map(|l| format!("a stale write on a server: {l}")));
        }
        Ok(found)
    }
}

fn log_of(server: &tenantry::testing::TestServer) -> Result<String, Anything> {
    match server.kind() {
        tenantry::testing::server::ServerKind::Local { directory, .. } => {
            Ok(directory.join("server.log").to_string_lossy().into_owned())
        }
        _ => Err("the torture needs local servers".into()),
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
