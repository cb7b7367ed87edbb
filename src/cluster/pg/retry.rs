//! Retrying statements that fail because another session has locked or has just changed the same row.
//!
//! Concurrent operations change shared catalogs such as `pg_authid`, where PostgreSQL raises an error and does not
//! wait. Both functions leave the session usable after such an error.
use super::ddl;
use crate::error::ClusterError;
use crate::sqlstate;
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::sleep;

/// Pause between two attempts, so that the other session can finish.
const PAUSE: Duration = Duration::from_millis(5);
/// Attempts of a statement.
const TRIES: u32 = 20;

/// Runs a statement once. `false` if another session has locked or just changed the row; the session is usable then.
pub(crate) async fn try_once(
    session: &mut PgConnection, statement: ddl::Ddl, phase: &'static str,
) -> Result<bool, ClusterError> {
    match statement.execute(session).await {
        Ok(()) => Ok(true),
        Err(e) if sqlstate::is_contended(&e) => {
            ddl::roll_back().run(session, "rolling back").await?;
            Ok(false)
        }
        Err(source) => Err(ClusterError::Sql { phase, source }),
    }
}

/// Runs a statement, up to 20 times while another session has locked or just changed the row.
///
/// # Errors
/// The error of the last attempt.
pub(crate) async fn retry_contended(
    session: &mut PgConnection, statement: impl Fn() -> ddl::Ddl, phase: &'static str,
) -> Result<(), ClusterError> {
    for _ in 1..TRIES {
        if try_once(session, statement(), phase).await? {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    statement().run(session, phase).await
}
