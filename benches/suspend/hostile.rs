//! What a hostile login does: keep its own role locked, prepare that, lock other tenants' databases, grant to their roles.
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tenantry::sqlx;

/// Whether it works is no matter.
async fn run(session: &mut PgConnection, text: String) {
    #[expect(clippy::disallowed_methods, reason = "the SQL of a benchmark")]
    let _ = sqlx::raw_sql(AssertSqlSafe(text)).execute(session).await;
}

/// Sessions that keep their own role locked: one openly, one in a prepared transaction of the other database.
pub(crate) async fn sessions(login: &PgConnectOptions) -> Vec<PgConnection> {
    let mut sessions = vec![];
    for _ in 0..4 {
        sessions.extend(login.connect().await.ok());
    }
    if let Some(first) = sessions.first_mut() {
        run(first, String::from("BEGIN; SET LOCAL ROLE NONE; ALTER ROLE CURRENT_USER PASSWORD 'x'")).await;
        if rand::random_bool(0.5) {
            run(first, String::from("PREPARE TRANSACTION 'locked'")).await;
        }
    }
    sessions
}

/// A neighbour that disturbs others without a pause.
pub(crate) async fn neighbour(login: PgConnectOptions) {
    loop {
        let Ok(mut session) = login.connect().await else { continue };
        while session.ping().await.is_ok() {
            disturb(&mut session).await;
        }
    }
}

async fn disturb(session: &mut PgConnection) {
    const ROLES: &str = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 't\\_%'";
    const DATABASES: &str = "SELECT datname::text FROM pg_database WHERE datname LIKE 't\\_%'";
    let roles: Vec<String> = sqlx::query_scalar(ROLES).fetch_all(&mut *session).await.unwrap_or_default();
    for (n, role) in roles.into_iter().enumerate() {
        run(session, format!("SELECT lo_create({})", 60_000 + n)).await;
        run(session, format!("GRANT SELECT ON LARGE OBJECT {} TO \"{role}\"", 60_000 + n)).await;
    }
    let databases: Vec<String> = sqlx::query_scalar(DATABASES).fetch_all(&mut *session).await.unwrap_or_default();
    for database in databases {
        let set = format!("ALTER ROLE CURRENT_USER IN DATABASE \"{database}\" SET work_mem = '4MB'");
        run(session, format!("SET ROLE NONE; BEGIN; {set}; PREPARE TRANSACTION 'in the way'")).await;
        run(session, String::from("ROLLBACK PREPARED 'in the way'; RESET ROLE")).await;
    }
}
