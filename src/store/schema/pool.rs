use sqlx::Connection;
use sqlx::postgres::PgPoolOptions;
use std::time::Duration;

/// What was idle for less is not asked whether it lives: a server that goes away is met by the next statement anyway.
const TRUSTED: Duration = Duration::from_secs(1);

/// Options of a pool for the landlord: a connection is pinged before use only if it was idle for a second, where sqlx's
/// default pings it each time, and a landlord that is away is told after three seconds, not after thirty. Change them as
/// you like; any pool will do.
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
        |session, seen| {
            Box::pin(async move {
                if seen.idle_for >= TRUSTED {
                    session.ping().await?;
                }
                Ok(true)
            })
        },
    )
}
