//! Waiting until a physical standby has replayed what the primary has committed.
//!
//! `LockedSession` reads the WAL position on the primary after it has refused a tenant's logins, and waits for it on
//! each standby. From then on the standby refuses the logins too.
use crate::error::ClusterError;
use crate::names::RoleName;
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long to wait for the replay.
const LIMIT: Duration = Duration::from_secs(10);
const FIRST_POLL: Duration = Duration::from_millis(1);
const MAX_POLL: Duration = Duration::from_millis(20);
/// Interval after which sessions that are still there are signalled again.
const SIGNAL_AGAIN: Duration = Duration::from_secs(1);

/// Reads, on the primary, up to which position the WAL is flushed. A standby that has replayed up to it has every
/// commit that was flushed before. The flushed position, because the primary sends only flushed WAL.
pub(crate) async fn read_flush_position(session: &mut PgConnection) -> Result<String, ClusterError> {
    let position = sqlx::query_scalar("SELECT pg_current_wal_flush_lsn()::text").fetch_one(session).await;
    position.map_err(ClusterError::sql("reading the WAL position of the primary"))
}

/// Waits, on a standby, up to 10 seconds until it has replayed the WAL up to `position` and none of these logins is
/// LOGIN. With `signal` it terminates their sessions meanwhile, where it may, because a query of theirs can delay the
/// replay. New sessions can connect until the refusal is replayed.
///
/// Both conditions are needed. The position excludes an older state in which the logins were refused too. The roles
/// prove that the refusal is replayed: with `synchronous_commit = off` its commit may lie behind the flushed position.
///
/// # Errors
/// `Deadline` when the standby is too far behind.
pub(crate) async fn wait_for_refusal(
    session: &mut PgConnection, position: &str, logins: &[&RoleName], signal: bool,
) -> Result<(), ClusterError> {
    const REFUSED: &str = "SELECT coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false) \
        AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = ANY($2) AND rolcanlogin)";
    let names: Vec<&str> = logins.iter().map(|l| l.as_str()).collect();
    let (started, mut signalled, mut poll) = (Instant::now(), None::<Instant>, FIRST_POLL);
    loop {
        let refused = sqlx::query_scalar(REFUSED).bind(position).bind(&names).fetch_one(&mut *session).await;
        if refused.map_err(ClusterError::sql("reading the replay position of a standby"))? {
            return Ok(());
        }
        if started.elapsed() >= LIMIT {
            return Err(ClusterError::Deadline {
                phase: "replaying the WAL of the primary on a standby",
                limit: LIMIT,
            });
        }
        if signal && signalled.is_none_or(|at| at.elapsed() >= SIGNAL_AGAIN) {
            signalled = Some(Instant::now());
            signal_where_allowed(session, &names).await?;
        }
        sleep(poll).await;
        poll = (poll * 2).min(MAX_POLL);
    }
}

/// Terminates the sessions of these logins that the provisioner may terminate. Until the GRANT of the membership is
/// replayed, that needs `pg_signal_backend`.
async fn signal_where_allowed(session: &mut PgConnection, names: &[&str]) -> Result<(), ClusterError> {
    const SIGNAL: &str = "SELECT count(CASE WHEN pg_has_role(usesysid, 'USAGE') \
            OR pg_has_role('pg_signal_backend', 'USAGE') THEN pg_terminate_backend(pid) END) \
        FROM pg_stat_activity WHERE usesysid = ANY(SELECT oid FROM pg_roles WHERE rolname = ANY($1))";
    let signalled = sqlx::query(SIGNAL).bind(names).execute(session).await;
    signalled.map(drop).map_err(ClusterError::sql("terminating sessions on a standby"))
}
