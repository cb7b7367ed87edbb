//! A hostile neighbour: another tenant on the same server, whose login obstructs operations during some of the runs.
//!
//! It does what a tenant's login is allowed to do: it grants rights to roles of other tenants, takes locks on them, and
//! leaves prepared transactions.
use super::AnyError;
use super::lane::Lane;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use std::time::Duration;
use tenantry::registry::TenantRegistry;
use tenantry::sqlx;
use tokio::task::JoinHandle;

/// Pause between two rounds. It keeps the neighbour from using up the two cores that it shares with the run.
const PAUSE: Duration = Duration::from_millis(30);

/// The task of the neighbour. Dropping this aborts the task.
pub(crate) struct HostileNeighbour(JoinHandle<()>);

impl HostileNeighbour {
    /// Starts the neighbour on this server, with the login of the tenant that the lane created there.
    pub(crate) async fn start(lane: &Lane, server: &str) -> Result<Self, AnyError> {
        use secrecy::ExposeSecret;
        let slug = format!("neighbour-{server}");
        let tenant =
            lane.rescuer.registry().find(slug.as_str().into()).await?.ok_or("the neighbour tenant does not exist")?;
        let entry =
            lane.rescuer.registry().primary(tenant.id()).await?.ok_or("the neighbour tenant has no primary entry")?;
        let password = lane.rescuer.vault().open(&entry.credential).await?;
        let options = lane.server(server).admin_options().username(entry.login.as_str());
        let options = options.password(password.expose_secret()).database(entry.database.as_str());
        Ok(Self(tokio::spawn(disturb(options.application_name("a hostile neighbour")))))
    }
}

impl Drop for HostileNeighbour {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs rounds for ever. Connects again after its session was terminated or its server crashed.
async fn disturb(login: PgConnectOptions) {
    loop {
        if let Ok(mut session) = login.connect().await {
            while disturb_once(&mut session).await.is_ok() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Grants rights to roles of other tenants and locks a database of another tenant. In one of five rounds the
/// transaction that holds the lock is left prepared.
async fn disturb_once(session: &mut PgConnection) -> Result<(), sqlx::Error> {
    const ROLES: &str = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 't\\_%' ORDER BY random() LIMIT 3";
    let roles: Vec<String> = sqlx::query_scalar(ROLES).fetch_all(&mut *session).await?;
    for role in roles {
        let large = rand::random_range(70_000..70_020);
        run_ignoring_errors(session, format!("SELECT lo_create({large})")).await;
        run_ignoring_errors(session, format!("GRANT SELECT ON LARGE OBJECT {large} TO \"{role}\"")).await;
        run_ignoring_errors(session, format!("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO \"{role}\"")).await;
    }
    const OTHER: &str = "SELECT datname::text FROM pg_database WHERE datname LIKE 't\\_%' ORDER BY random() LIMIT 1";
    let other: Option<String> = sqlx::query_scalar(OTHER).fetch_optional(&mut *session).await?;
    let Some(other) = other else { return Ok(()) };
    run_ignoring_errors(session, String::from("SET ROLE NONE; BEGIN")).await;
    run_ignoring_errors(session, format!("ALTER ROLE CURRENT_USER IN DATABASE \"{other}\" SET work_mem = '4MB'")).await;
    tokio::time::sleep(PAUSE).await;
    match rand::random_bool(0.2) {
        true => run_ignoring_errors(session, String::from("PREPARE TRANSACTION 'of a hostile neighbour'")).await,
        false => run_ignoring_errors(session, String::from("ROLLBACK")).await,
    }
    run_ignoring_errors(session, String::from("ROLLBACK; RESET ROLE")).await;
    session.ping().await
}

/// Runs the statements and ignores errors: some of them are refused on purpose.
async fn run_ignoring_errors(session: &mut PgConnection, text: String) {
    #[expect(clippy::disallowed_methods, reason = "names are quoted and come from the catalog of a test server")]
    let _ = sqlx::raw_sql(AssertSqlSafe(text)).execute(session).await;
}

/// Terminates the neighbour's sessions and rolls back its prepared transactions, so that the next run starts clean.
pub(crate) async fn clean_up(lane: &Lane, server: &str) -> Result<(), AnyError> {
    const PREPARED: &str = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
    let slug = format!("neighbour-{server}");
    let tenant =
        lane.rescuer.registry().find(slug.as_str().into()).await?.ok_or("the neighbour tenant does not exist")?;
    let entry =
        lane.rescuer.registry().primary(tenant.id()).await?.ok_or("the neighbour tenant has no primary entry")?;
    let mut superuser = lane.server(server).admin_options().database(entry.database.as_str()).connect().await?;
    const SESSIONS: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE application_name = 'a hostile neighbour'";
    sqlx::query(SESSIONS).execute(&mut superuser).await?;
    let left: Vec<String> = sqlx::query_scalar(PREPARED).fetch_all(&mut superuser).await?;
    for gid in left {
        run_ignoring_errors(&mut superuser, format!("ROLLBACK PREPARED '{gid}'")).await;
    }
    Ok(superuser.close().await?)
}
