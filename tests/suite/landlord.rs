use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use std::time::Duration;
use tenantry::testing::TestServer;

/// An empty database, as a host has it before it installs anything, and how its own login connects.
pub(crate) async fn empty() -> PgConnectOptions {
    let server = TestServer::shared().await.expect("a PostgreSQL");
    server.create_database("landlord").await.expect("a database").options()
}

/// A landlord that is installed.
pub(crate) async fn installed() -> PgPool {
    let landlord = pool(empty().await);
    tenantry::schema::install(&landlord).await.expect("an installation");
    landlord
}

/// Small, since all tests share one server; a deadlock in a test shows as an error, not as silence.
pub(crate) fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new().max_connections(5).acquire_timeout(Duration::from_secs(20)).connect_lazy_with(options)
}

/// Returns when a session of this landlord waits for a lock.
pub(crate) async fn somebody_waits(landlord: &PgPool) {
    const WAITS: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND wait_event_type = 'Lock'";
    for _ in 0..200 {
        if sqlx::query_scalar::<_, i64>(WAITS).fetch_one(landlord).await.expect("an answer") > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nobody waited for a lock within 4 s");
}
