//! Statements that fail because another session holds or has just changed the same row.
use super::ddl;
use crate::error::ClusterError;
use crate::sqlstate;
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::sleep;

/// Between two tries: a session that was told to end needs a moment.
const PAUSE: Duration = Duration::from_millis(5);
/// Tries of a statement that another session's change of the same row has made fail.
const TRIES: u32 = 20;

/// Whether it was done; `false` if another session holds what it needs. The session is usable again then.
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

/// Repeats a statement that fails because another session has just changed the same row.
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
