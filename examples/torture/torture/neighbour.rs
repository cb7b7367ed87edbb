//! A hostile neighbour: in some runs the login of another tenant does, beside them, what is in the way of others.
use super::Anything;
use super::lane::Lane;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use std::time::Duration;
use tenantry::registry::TenantRegistryExt;
use tenantry::sqlx;
use tokio::task::JoinHandle;

/// Between two of its rounds: it shares two cores with all that it disturbs.
const PAUSE: Duration = Duration::from_millis(30);

/// The task that disturbs; dropping this ends it.
pub(crate) struct Hostile(JoinHandle<()>);

impl Hostile {
    /// On this server, as the tenant that lives there all the time.
    pub(crate) async fn start(lane: &Lane, server: &str) -> Result<Self, Anything> {
        use secrecy::ExposeSecret;
        let slug = format!("neighbour-{server}");
        let tenant = lane.rescuer.registry().find(slug.as_str().into()).await?.ok_or("no neighbour")?;
        let entry = lane.rescuer.registry().primary(tenant.id()).await?.ok_or("no entry")?;
        let password = lane.rescuer.vault().open(&entry.credential).await?;
        let options = lane.server(server).admin_options().username(entry.login.as_str());
        let options = options.password(password.expose_secret()).database(entry.database.as_str());
        Ok(Self(tokio::spawn(disturb(options.application_name("a hostile neighbour")))))
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects again whenever its session was ended or its server crashed.
async fn disturb(login: PgConnectOptions) {
    loop {
        if let Ok(mut session) = login.connect().await {
            while round(&mut session).await.is_ok() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Grants to roles of others, locks a database of another tenant, and sometimes leaves that prepared.
async fn round(session: &mut PgConnection) -> Result<(), sqlx::Error> {
    const ROLES: &str = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 't\\_%' ORDER BY random() LIMIT 3";
    let roles: Vec<String> = sqlx::query_scalar(ROLES).fetch_all(&mut *session).await?;
    for role in roles {
        let large = rand::random_range(70_000..70_020);
        run(session, format!("SELECT lo_create({large})")).await;
        run(session, format!("GRANT SELECT ON LARGE OBJECT {large} TO \"{role}\"")).await;
        run(session, format!("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO \"{role}\"")).await;
    }
    const OTHER: &str = "SELECT datname::text FROM pg_database WHERE datname LIKE 't\\_%' ORDER BY random() LIMIT 1";
    let other: Option<String> = sqlx::query_scalar(OTHER).fetch_optional(&mut *session).await?;
    let Some(other) = other else { return Ok(()) };
    run(session, String::from("SET ROLE NONE; BEGIN")).await;
    run(session, format!("ALTER ROLE CURRENT_USER IN DATABASE \"{other}\" SET work_mem = '4MB'")).await;
    tokio::time::sleep(PAUSE).await;
    match rand::random_bool(0.2) {
        true => run(session, String::from("PREPARE TRANSACTION 'of a hostile neighbour'")).await,
        false => run(session, String::from("ROLLBACK")).await,
    }
    run(session, String::from("ROLLBACK; RESET ROLE")).await;
    session.ping().await
}

/// Whether it works is no matter.
async fn run(session: &mut PgConnection, text: String) {
    #[expect(clippy::disallowed_methods, reason = "the SQL of the torture")]
    let _ = sqlx::raw_sql(AssertSqlSafe(text)).execute(session).await;
}

/// What it has left prepared, for the next run.
pub(crate) async fn clear(lane: &Lane, server: &str) -> Result<(), Anything> {
    const PREPARED: &str = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
    let slug = format!("neighbour-{server}");
    let tenant = lane.rescuer.registry().find(slug.as_str().into()).await?.ok_or("no neighbour")?;
    let entry = lane.rescuer.registry().primary(tenant.id()).await?.ok_or("no entry")?;
    let mut superuser = lane.server(server).admin_options().database(entry.database.as_str()).connect().await?;
    const SESSIONS: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE application_name = 'a hostile neighbour'";
    sqlx::query(SESSIONS).execute(&mut superuser).await?;
    let left: Vec<String> = sqlx::query_scalar(PREPARED).fetch_all(&mut superuser).await?;
    for gid in left {
        run(&mut superuser, format!("ROLLBACK PREPARED '{gid}'")).await;
    }
    Ok(superuser.close().await?)
}
