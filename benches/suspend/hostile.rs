//! A hostile tenant that tries to delay operations of others and its own suspension.
//!
//! It uses only rights that every tenant has. It locks its own role, also in prepared transactions. It prepares
//! settings of its own role for other tenants' databases, which locks these databases. It grants privileges to other
//! tenants' roles.
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tenantry::sqlx;

/// Runs statements and ignores errors, as the server may refuse any of them.
async fn try_run(session: &mut PgConnection, text: String) {
    #[expect(
        clippy::disallowed_methods,
        reason = "the names in the SQL come from the server's catalog or are constants"
    )]
    let _ = sqlx::raw_sql(AssertSqlSafe(text)).execute(session).await;
}

/// Opens sessions of this login and locks its role in a transaction, which in half of the calls is then prepared. The
/// role stays locked while the returned sessions, or the prepared transaction, exist.
pub(crate) async fn lock_own_role(login: &PgConnectOptions) -> Vec<PgConnection> {
    let mut sessions = vec![];
    for _ in 0..4 {
        sessions.extend(login.connect().await.ok());
    }
    if let Some(first) = sessions.first_mut() {
        try_run(first, String::from("BEGIN; SET LOCAL ROLE NONE; ALTER ROLE CURRENT_USER PASSWORD 'x'")).await;
        if rand::random_bool(0.5) {
            try_run(first, String::from("PREPARE TRANSACTION 'locked'")).await;
        }
    }
    sessions
}

/// Disturbs other tenants without a pause. Never returns; the caller aborts the task.
pub(crate) async fn disturb_others(login: PgConnectOptions) {
    loop {
        let Ok(mut session) = login.connect().await else { continue };
        while session.ping().await.is_ok() {
            disturb_once(&mut session).await;
        }
    }
}

/// Grants to every other tenant's role, and prepares a change of its own settings for every other tenant's database.
async fn disturb_once(session: &mut PgConnection) {
    const ROLES: &str = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 't\\_%'";
    const DATABASES: &str = "SELECT datname::text FROM pg_database WHERE datname LIKE 't\\_%'";
    let roles: Vec<String> = sqlx::query_scalar(ROLES).fetch_all(&mut *session).await.unwrap_or_default();
    for (n, role) in roles.into_iter().enumerate() {
        try_run(session, format!("SELECT lo_create({})", 60_000 + n)).await;
        try_run(session, format!("GRANT SELECT ON LARGE OBJECT {} TO \"{role}\"", 60_000 + n)).await;
    }
    let databases: Vec<String> = sqlx::query_scalar(DATABASES).fetch_all(&mut *session).await.unwrap_or_default();
    for database in databases {
        let set = format!("ALTER ROLE CURRENT_USER IN DATABASE \"{database}\" SET work_mem = '4MB'");
        try_run(session, format!("SET ROLE NONE; BEGIN; {set}; PREPARE TRANSACTION 'in the way'")).await;
        try_run(session, String::from("ROLLBACK PREPARED 'in the way'; RESET ROLE")).await;
    }
}
