//! The advisory lock of a tenant, in the maintenance database; and the holder of a lock in a tenant's database.
//!
//! A worker takes it in the session that runs its DDL, after the epoch check. So DDL of two workers for one tenant
//! never overlaps, even if one of them has not noticed that its epoch is outdated, and the lock is released when the
//! session ends.
use super::ddl;
use crate::error::ClusterError;
use crate::names::DatabaseName;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Key of the lock: the first 64 bits of a SHA-256 over the installation and the subject. The installation is part of
/// it so that two installations on one server do not wait for each other.
pub(crate) fn key(installation: Uuid, subject: &str) -> i64 {
    let mut hash = Sha256::new();
    hash.update(installation.as_bytes());
    hash.update(subject.as_bytes());
    let bytes: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = bytes;
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Takes the lock, trying every 20 ms for at most `limit`.
///
/// # Errors
/// `Locked` names the session that has the lock.
pub(crate) async fn take(session: &mut PgConnection, key: i64, limit: Duration) -> Result<(), ClusterError> {
    take_or_terminate(session, key, limit, false).await
}

/// As [`take`], and terminates the session that has the lock, which must belong to an outdated worker.
///
/// # Errors
/// `Locked` if that session does not end.
pub(crate) async fn take_from_outdated_worker(
    session: &mut PgConnection, key: i64, limit: Duration,
) -> Result<(), ClusterError> {
    take_or_terminate(session, key, limit, true).await
}

async fn take_or_terminate(
    session: &mut PgConnection, key: i64, limit: Duration, terminate: bool,
) -> Result<(), ClusterError> {
    let deadline = Instant::now() + limit;
    loop {
        if ddl::try_lock(key).fetch_bool(session).await.map_err(ClusterError::sql("taking the lock"))? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(ClusterError::Locked { by: describe_holder(session, key).await? });
        }
        if terminate {
            super::terminate::terminate_lock_holders(session, key).await?;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn describe_holder(session: &mut PgConnection, key: i64) -> Result<String, ClusterError> {
    const HOLDER: &str = "SELECT format('process %s (%s)', l.pid, a.application_name) \
        FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
          AND l.classid::bigint = (($1 >> 32) & 4294967295) AND l.objid::bigint = ($1 & 4294967295)";
    let found: Option<String> = sqlx::query_scalar(HOLDER)
        .bind(key)
        .fetch_optional(session)
        .await
        .map_err(ClusterError::sql("looking for the session that has the lock"))?;
    Ok(found.unwrap_or_else(|| String::from("a session that has just ended")))
}

/// Describes the session that has an advisory lock with this key in another database, with what the provisioner may see
/// of it. Without the right to read other roles' statistics the times are unknown.
pub(crate) async fn describe_holder_in(
    session: &mut PgConnection, database: &DatabaseName, key: i64,
) -> Result<String, ClusterError> {
    const HOLDER: &str = "SELECT format( \
            'process %s (user %s, application name %L, connected since %s, %s since %s)', l.pid, a.usename, \
            a.application_name, coalesce(to_char(a.backend_start AT TIME ZONE 'UTC', $3), 'an unknown time'), \
            coalesce(a.state, 'in an unknown state'), \
            coalesce(to_char(a.state_change AT TIME ZONE 'UTC', $3), 'an unknown time')) \
        FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
          AND l.database = (SELECT oid FROM pg_database WHERE datname = $1) \
          AND l.classid::bigint = (($2 >> 32) & 4294967295) AND l.objid::bigint = ($2 & 4294967295)";
    let found: Option<String> = sqlx::query_scalar(HOLDER)
        .bind(database.as_str())
        .bind(key)
        .bind("YYYY-MM-DD HH24:MI:SS UTC")
        .fetch_optional(session)
        .await
        .map_err(ClusterError::sql("looking for the session that has the lock of the migrations"))?;
    Ok(found.unwrap_or_else(|| String::from("a session that has just ended")))
}
