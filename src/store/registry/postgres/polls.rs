//! Reads the committed changes that no earlier read could see.
//!
//! [`PgChanges`](super::PgChanges) runs it in parallel with LISTEN. A notification is fast and may be left out (see migration 3); a
//! row of `tenantry.tenant_changes` is part of the change itself.
//!
//! Invariant: a change that was committed before a read began is reported by that read or by an earlier one. Each read
//! returns its own snapshot, and the next read asks for the rows that this snapshot could not see. A transaction that
//! writes early and commits late is therefore found after its commit, however long it took.
use crate::rt;
use crate::tenant::TenantId;
use sqlx::{FromRow, PgPool};
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// A read that takes longer counts as failed.
const DEADLINE: Duration = Duration::from_secs(5);
/// Rows stay for at least so many seconds after their commit. A node that was away for half of it reads everything again.
const RETENTION: f64 = 600.0;
/// Most tenants that one read names; above it everything counts as changed.
const MOST: usize = 1000;
/// Most rows that are deleted after one read.
const BATCH: i64 = 5000;
/// As in the trigger of migration 3: above it notifications are left out.
pub(super) const FULL: f64 = 0.05;

/// Every statement sees the snapshot that it returns. `source` is another one after a crash, a failover or a restart: the
/// transaction ids of one server mean nothing on another. Asking for the queue's usage frees what every listener has read.
const READ: &str = "SELECT pg_current_snapshot()::text AS snapshot,
    concat(tenantry.current_incarnation(), ' ', extract(epoch FROM pg_postmaster_start_time())) AS source,
    extract(epoch FROM clock_timestamp())::float8 AS at,
    pg_notification_queue_usage() AS usage,
    ARRAY(SELECT DISTINCT tenant_id FROM tenantry.tenant_changes
        WHERE txid >= pg_snapshot_xmin($1::text::pg_snapshot)
          AND NOT pg_visible_in_snapshot(txid, $1::text::pg_snapshot)
        LIMIT $2) AS tenants";
/// Rows that were committed before this snapshot was taken. Any number of nodes delete at once.
const PRUNE: &str = "DELETE FROM tenantry.tenant_changes WHERE (txid, tenant_id) IN (
    SELECT txid, tenant_id FROM tenantry.tenant_changes
    WHERE txid < pg_snapshot_xmax($1::text::pg_snapshot) AND pg_visible_in_snapshot(txid, $1::text::pg_snapshot)
    ORDER BY txid LIMIT $2 FOR UPDATE SKIP LOCKED)";

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// These tenants have changed since the read before.
    Tenants(Vec<TenantId>),
    /// Any tenant may have changed.
    Everything,
}

#[derive(Clone, Debug, FromRow)]
struct Read {
    snapshot: String,
    source: String,
    /// Seconds, by the landlord's clock.
    at: f64,
    /// Of the queue of notifications, between 0 and 1.
    usage: f64,
    tenants: Vec<Uuid>,
}

/// One node's position in the changes.
pub(super) struct Polls {
    landlord: PgPool,
    last: Option<Read>,
    /// What was committed before this read may be deleted once it is older than [`RETENTION`].
    mark: Option<Read>,
    warned: bool,
}

impl Polls {
    pub(super) fn new(landlord: PgPool) -> Self {
        Self { landlord, last: None, mark: None, warned: false }
    }

    /// What has changed since the call before; the first call answers [`Found::Everything`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: the next call reports the same changes.
    pub(super) async fn next(&mut self) -> Result<Found, sqlx::Error> {
        let since = self.last.as_ref().map(|last| last.snapshot.as_str());
        let read = sqlx::query_as(READ).bind(since).bind(MOST as i64 + 1).fetch_one(&self.landlord);
        let read: Read = within(read).await?;
        self.warn(read.usage);
        let found = read.since(self.last.as_ref());
        if found == Found::Everything {
            self.mark = None;
        }
        let due = self.mark.get_or_insert_with(|| read.clone());
        if read.at - due.at >= RETENTION && self.prune().await {
            self.mark = Some(read.clone());
        }
        self.last = Some(read);
        Ok(found)
    }

    /// Deletes one batch of old rows; `true` once none are left. A failure is tried again with the next read.
    async fn prune(&self) -> bool {
        let Some(mark) = &self.mark else { return false };
        let pruned = sqlx::query(PRUNE).bind(&mark.snapshot).bind(BATCH).execute(&self.landlord);
        match within(pruned).await {
            Ok(done) => done.rows_affected() < BATCH as u64,
            Err(error) => {
                tracing::debug!(%error, "old rows of tenantry.tenant_changes are not deleted yet");
                false
            }
        }
    }

    fn warn(&mut self, usage: f64) {
        let full = usage >= FULL;
        if full && !self.warned {
            tracing::warn!(
                usage,
                "the landlord's queue of notifications fills up: changes reach other nodes by polling alone; end the \
                 sessions in pg_stat_activity that listen and are idle in a transaction, in any database of the cluster"
            );
        } else if !full && self.warned {
            tracing::info!(usage, "the landlord's queue of notifications has room again");
        }
        self.warned = full;
    }
}

impl Read {
    fn since(&self, last: Option<&Read>) -> Found {
        let Some(last) = last else { return Found::Everything };
        let away = (self.at - last.at).abs() > RETENTION / 2.0;
        if away || self.source != last.source || self.tenants.len() > MOST {
            return Found::Everything;
        }
        Found::Tenants(self.tenants.iter().copied().map(TenantId::from_uuid).collect())
    }
}

async fn within<T>(read: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match timeout(DEADLINE, rt::poll_batched(read)).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

#[cfg(test)]
mod tests;
