//! Landlord databases for tests: each call creates a new database on the shared server, so that tests do not see each
//! other.
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use std::time::Duration;
use tenantry::testing::TestServer;

/// Creates an empty database, without the crate's schema. Returns the options with which its owner connects.
pub(crate) async fn empty() -> PgConnectOptions {
    let server = TestServer::shared().await.expect("a PostgreSQL server is available");
    server.create_database("landlord").await.expect("the database is created").options()
}

/// Creates a database and installs the crate's schema in it.
pub(crate) async fn installed() -> PgPool {
    let landlord = pool(empty().await);
    tenantry::schema::install(&landlord).await.expect("the schema is installed");
    landlord
}

/// A pool of five connections, because all tests share one server. The acquire timeout of 20 seconds turns a deadlock
/// of a test into an error.
pub(crate) fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new().max_connections(5).acquire_timeout(Duration::from_secs(20)).connect_lazy_with(options)
}

/// Waits until a session of this landlord waits for a lock. Panics after four seconds.
pub(crate) async fn somebody_waits(landlord: &PgPool) {
    const WAITS: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND wait_event_type = 'Lock'";
    for _ in 0..200 {
        if sqlx::query_scalar::<_, i64>(WAITS).fetch_one(landlord).await.expect("pg_stat_activity can be read") > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no session waited for a lock within 4 s");
}
