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

/// Rolls back an open transaction and, if `discard` is set, resets the session state.
async fn clear(session: &mut PgConnection, discard: bool) -> Result<(), sqlx::Error> {
    // Outside a transaction block the statement starts its own transaction, so the two times are equal.
    const IN_TRANSACTION: &str = "SELECT now() <> statement_timestamp()";
    match session.fetch_one(sqlx::raw_sql(IN_TRANSACTION)).await.and_then(|row| row.try_get::<bool, _>(0)) {
        Ok(false) => {}
        // A failed transaction rejects every statement (25P02) until it is rolled back.
        Ok(true) | Err(sqlx::Error::Database(_)) => {
            session.execute("ROLLBACK").await?;
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
