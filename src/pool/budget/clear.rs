//! What is cleared in a session between two users of its tenant.
//!
//! The `after_release` hook of a connection calls [`clear_in_time`] when a user has returned it. Invariant: a session
//! that could not be cleared is closed.
use super::connection::Handover;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, Row};
use std::io::ErrorKind;
use tokio::time::timeout;

/// Clears a returned session within `release_timeout`. Without the deadline, a session that still expects the rest of a
/// `COPY … FROM STDIN` would never become ready and would keep its slot for ever.
pub(super) async fn clear_in_time(session: &mut PgConnection, handover: Handover) -> Result<(), sqlx::Error> {
    match timeout(handover.release_timeout, clear(session, handover.discard)).await {
        Ok(cleared) => cleared,
        Err(_) => Err(sqlx::Error::Io(ErrorKind::TimedOut.into())),
    }
}

/// Rolls back an open transaction, releases the session's advisory locks and stops its `LISTEN`s. With `discard`,
/// resets all of the session's state.
///
/// One round trip, unless a transaction is open. `UNLISTEN` and the unlocking function also work on a standby.
async fn clear(session: &mut PgConnection, discard: bool) -> Result<(), sqlx::Error> {
    // Outside a transaction block the statements start their own transaction, so the two times are equal.
    const CLEAR: &str =
        "SELECT now() <> statement_timestamp() AS open, pg_catalog.pg_advisory_unlock_all(); UNLISTEN *";
    const ROLL_BACK: &str = "ROLLBACK; SELECT pg_catalog.pg_advisory_unlock_all(); UNLISTEN *";
    // All results are read: with only the first one, an error of the second statement would be lost.
    let cleared = session.fetch_all(sqlx::raw_sql(CLEAR)).await;
    match cleared.and_then(|rows| rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get::<bool, _>("open")) {
        Ok(false) => {}
        // An open transaction would undo the UNLISTEN, and a failed one rejects every statement (25P02) until it is
        // rolled back. ROLLBACK alone is not sent each time, because outside a transaction it logs a warning.
        Ok(true) | Err(sqlx::Error::Database(_)) => {
            session.execute(sqlx::raw_sql(ROLL_BACK)).await?;
        }
        Err(error) => return Err(error),
    }
    if discard {
        // `DISCARD ALL` deallocates prepared statements. sqlx must not use its cached names for them afterwards.
        session.clear_cached_statements().await?;
        session.execute("DISCARD ALL").await?;
    }
    Ok(())
}
