//! A physical standby: what was done on the primary holds there as soon as it is replayed.
use crate::error::ClusterError;
use crate::names::RoleName;
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const LIMIT: Duration = Duration::from_secs(10);
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LONGEST_LOOK: Duration = Duration::from_millis(20);
const SIGNAL_AGAIN: Duration = Duration::from_secs(1);

/// On the primary: whoever has replayed so far has everything that was committed before. What is flushed, since nothing
/// else is sent.
pub(crate) async fn position(session: &mut PgConnection) -> Result<String, ClusterError> {
    let position = sqlx::query_scalar("SELECT pg_current_wal_flush_lsn()::text").fetch_one(session).await;
    position.map_err(ClusterError::sql("asking how far the primary's log goes"))
}

/// On a standby: waits until it has replayed so far and no login of these may come in. Meanwhile, if told to, it ends
/// their sessions where it may: a query of theirs can hold up the replay. Others come in until that has ended.
///
/// The position says that nothing older is looked at; the roles, that the commit was part of it, also where the server
/// does not wait for its log (`synchronous_commit = off`).
pub(crate) async fn awaited(
    session: &mut PgConnection, position: &str, logins: &[&RoleName], signal: bool,
) -> Result<(), ClusterError> {
    const REFUSED: &str = "SELECT coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false) \
        AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = ANY($2) AND rolcanlogin)";
    let names: Vec<&str> = logins.iter().map(|l| l.as_str()).collect();
    let (begun, mut signalled, mut look) = (Instant::now(), None::<Instant>, FIRST_LOOK);
    loop {
        let refused = sqlx::query_scalar(REFUSED).bind(position).bind(&names).fetch_one(&mut *session).await;
        if refused.map_err(ClusterError::sql("asking how far a standby is"))? {
            return Ok(());
        }
        if begun.elapsed() >= LIMIT {
            return Err(ClusterError::Deadline { phase: "replaying what the primary has done", limit: LIMIT });
        }
        if signal && signalled.is_none_or(|at| at.elapsed() >= SIGNAL_AGAIN) {
            signalled = Some(Instant::now());
            signal_where_allowed(session, &names).await?;
        }
        sleep(look).await;
        look = (look * 2).min(LONGEST_LOOK);
    }
}

/// Before c1 is replayed the admin role is no member of these logins, and may end their sessions by `pg_signal_backend`
/// alone, if it has that.
async fn signal_where_allowed(session: &mut PgConnection, names: &[&str]) -> Result<(), ClusterError> {
    const SIGNAL: &str = "SELECT count(CASE WHEN pg_has_role(usesysid, 'USAGE') \
            OR pg_has_role('pg_signal_backend', 'USAGE') THEN pg_terminate_backend(pid) END) \
        FROM pg_stat_activity WHERE usesysid = ANY(SELECT oid FROM pg_roles WHERE rolname = ANY($1))";
    let signalled = sqlx::query(SIGNAL).bind(names).execute(session).await;
    signalled.map(drop).map_err(ClusterError::sql("ending sessions on a standby"))
}
