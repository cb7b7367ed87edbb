//! The second fence: an advisory lock in the maintenance database, held by the very session that does the DDL.
use super::ddl;
use crate::error::ClusterError;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// 64 bits of a hash over the installation and the subject: two installations never wait for each other, and two
/// subjects practically never.
pub(crate) fn key(installation: Uuid, subject: &str) -> i64 {
    let mut hash = Sha256::new();
    hash.update(installation.as_bytes());
    hash.update(subject.as_bytes());
    let bytes: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = bytes;
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Takes it, or says who has it when the time is over. `evict`: whoever has it belongs to an epoch that is over, and is
/// ended.
pub(crate) async fn take(
    session: &mut PgConnection, key: i64, evict: bool, limit: Duration,
) -> Result<(), ClusterError> {
    let until = Instant::now() + limit;
    loop {
        if ddl::try_lock(key).ask(session).await.map_err(ClusterError::sql("taking the lock"))? {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(ClusterError::Locked { by: holder(session, key).await? });
        }
        if evict {
            super::terminate::terminate_lock_holders(session, key).await?;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn holder(session: &mut PgConnection, key: i64) -> Result<String, ClusterError> {
    const HOLDER: &str = "SELECT format('process %s (%s)', l.pid, a.application_name) \
        FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
          AND l.classid::bigint = (($1 >> 32) & 4294967295) AND l.objid::bigint = ($1 & 4294967295)";
    let found: Option<String> = sqlx::query_scalar(HOLDER)
        .bind(key)
        .fetch_optional(session)
        .await
        .map_err(ClusterError::sql("asking who has the lock"))?;
    Ok(found.unwrap_or_else(|| String::from("a session that has just ended")))
}
