//! Pool options for the landlord.
//!
//! The application uses them to build the pool that it passes to the facade; any other `PgPool` works too.
use sqlx::Connection;
use sqlx::postgres::PgPoolOptions;
use std::time::Duration;

/// A connection that was idle for less than this is not pinged. If its server went away in that time, the next
/// statement reports it.
const PING_AFTER_IDLE: Duration = Duration::from_secs(1);

/// Options for a pool to the landlord. Two of them differ from sqlx's defaults: a connection is pinged before use only
/// if it was idle for at least a second, not each time, and an unreachable landlord is reported after three seconds,
/// not after thirty. Change them as you like; any pool works.
///
/// In a URL, write `%40` for an `@`, `%23` for a `#` and `%2F` for a `/` in the password.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use tenantry::sqlx::postgres::PgConnectOptions;
///
/// let options: PgConnectOptions = std::env::var("DATABASE_URL")?.parse()?;
/// let landlord = tenantry::schema::pool_options().max_connections(20).connect_with(options).await?;
/// # Ok(()) }
/// ```
pub fn pool_options() -> PgPoolOptions {
    PgPoolOptions::new().acquire_timeout(Duration::from_secs(3)).test_before_acquire(false).before_acquire(
        |session, metadata| {
            Box::pin(async move {
                if metadata.idle_for >= PING_AFTER_IDLE {
                    session.ping().await?;
                }
                Ok(true)
            })
        },
    )
}
