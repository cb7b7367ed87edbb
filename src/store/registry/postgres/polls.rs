//! Reads the committed changes that no earlier read could see.
//!
//! [`PgChanges`](super::PgChanges) runs it in parallel with LISTEN. A notification is fast but may be left out (see
//! `schema/migrations/3_tenant_changes.sql`). A row of `tenantry.tenant_changes` is written in the transaction of the
//! change, so it cannot be missing.
//!
//! Invariant: a change that was committed before a read began is reported by that read or by an earlier one. Each read
//! returns its own snapshot, and the next read asks for the rows that this snapshot could not see. A transaction that
//! writes early and commits late is therefore found after its commit, however long it took.
use crate::rt;
use crate::store::schema::LandlordPool;
use crate::tenant::TenantId;
use sqlx::{FromRow, PgPool};
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// Maximum duration of a read. A longer one counts as failed.
const DEADLINE: Duration = Duration::from_secs(5);
/// Maximum duration of its statement. The rest of the deadline is for cancelling it.
const STATEMENT: Duration = Duration::from_secs(3);
/// Minimum seconds that a row stays after its commit. A node without a successful read for half of that time treats all
/// tenants as changed, since rows may have been deleted before it read them.
const RETENTION: f64 = 600.0;
/// Maximum tenants that one read reports. If there are more, all tenants count as changed.
const MAX_TENANTS: usize = 1000;
/// Maximum rows that are deleted after one read.
const BATCH: i64 = 5000;
/// Usage of the notification queue, from 0 to 1, above which the trigger of `3_tenant_changes.sql` sends no
/// notifications. The value here must be the same.
pub(super) const QUEUE_ALMOST_FULL: f64 = 0.05;

/// `snapshot` is the snapshot that this statement itself sees. `source` changes with a crash, a failover or a restart,
/// because the transaction ids of one server mean nothing on another. pg_notification_queue_usage() also frees the part
/// of the queue that every listener has read.
const READ: &str = "SELECT pg_current_snapshot()::text AS snapshot,
    concat(tenantry.current_incarnation(), ' ', extract(epoch FROM pg_postmaster_start_time())) AS source,
    extract(epoch FROM clock_timestamp())::float8 AS at,
    pg_notification_queue_usage() AS usage,
    ARRAY(SELECT DISTINCT tenant_id FROM tenantry.tenant_changes
        WHERE txid >= pg_snapshot_xmin($1::text::pg_snapshot)
          AND NOT pg_visible_in_snapshot(txid, $1::text::pg_snapshot)
        LIMIT $2) AS tenants";
/// Deletes rows that were committed before this snapshot was taken. SKIP LOCKED: any number of nodes may delete at
/// once.
const PRUNE: &str = "DELETE FROM tenantry.tenant_changes WHERE (txid, tenant_id) IN (
    SELECT txid, tenant_id FROM tenantry.tenant_changes
    WHERE txid < pg_snapshot_xmax($1::text::pg_snapshot) AND pg_visible_in_snapshot(txid, $1::text::pg_snapshot)
    ORDER BY txid LIMIT $2 FOR UPDATE SKIP LOCKED)";

/// The tenants that a read reports as changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PollResult {
    /// These tenants have changed since the previous read.
    Tenants(Vec<TenantId>),
    /// Any tenant may have changed.
    Everything,
}

#[derive(Clone, Debug, FromRow)]
struct Read {
    snapshot: String,
    source: String,
    /// Time of the read in seconds since 1970, by the landlord's clock.
    at: f64,
    /// Usage of the notification queue, from 0 to 1.
    usage: f64,
    tenants: Vec<Uuid>,
}

/// Reads the changes for one node, and remembers how far it has read.
pub(super) struct ChangePoller {
    landlord: LandlordPool,
    last: Option<Read>,
    /// Rows that were committed before this read may be deleted once it is [`RETENTION`] old.
    mark: Option<Read>,
    warned: bool,
}

impl ChangePoller {
    pub(super) fn new(landlord: PgPool) -> Self {
        let landlord = LandlordPool::new(landlord).with_deadline(STATEMENT);
        Self { landlord, last: None, mark: None, warned: false }
    }

    /// Returns the tenants that have changed since the previous call. The first call returns
    /// [`PollResult::Everything`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: the next call reports the same changes.
    pub(super) async fn next(&mut self) -> Result<PollResult, sqlx::Error> {
        let since = self.last.as_ref().map(|last| last.snapshot.as_str());
        let read = sqlx::query_as(READ).bind(since).bind(MAX_TENANTS as i64 + 1).fetch_one(&self.landlord);
        let read: Read = with_deadline(read).await?;
        self.log_queue_usage(read.usage);
        let result = read.compare_with(self.last.as_ref());
        if result == PollResult::Everything {
            self.mark = None;
        }
        let mark = self.mark.get_or_insert_with(|| read.clone());
        if read.at - mark.at >= RETENTION && self.prune().await {
            self.mark = Some(read.clone());
        }
        self.last = Some(read);
        Ok(result)
    }

    /// Deletes one batch of old rows, and returns `true` once none are left. After a failure, the next call of
    /// [`next`](Self::next) tries again.
    async fn prune(&self) -> bool {
        let Some(mark) = &self.mark else { return false };
        let pruned = sqlx::query(PRUNE).bind(&mark.snapshot).bind(BATCH).execute(&self.landlord);
        match with_deadline(pruned).await {
            Ok(done) => done.rows_affected() < BATCH as u64,
            Err(error) => {
                tracing::debug!(%error, "cannot delete old rows of tenantry.tenant_changes; the next poll tries again");
                false
            }
        }
    }

    /// Logs a warning when the notification queue becomes almost full, and a message when it has room again.
    fn log_queue_usage(&mut self, usage: f64) {
        let is_full = usage >= QUEUE_ALMOST_FULL;
        if is_full && !self.warned {
            tracing::warn!(
                usage,
                "the landlord's notification queue is almost full, so other nodes find changes only by polling; \
                 end the sessions in pg_stat_activity that listen and are idle in a transaction, in any database of \
                 the cluster"
            );
        } else if !is_full && self.warned {
            tracing::info!(usage, "the landlord's notification queue has room again");
        }
        self.warned = is_full;
    }
}

impl Read {
    /// The result of this read for a node whose previous read is `last`.
    fn compare_with(&self, last: Option<&Read>) -> PollResult {
        let Some(last) = last else { return PollResult::Everything };
        let is_outdated = (self.at - last.at).abs() > RETENTION / 2.0;
        if is_outdated || self.source != last.source || self.tenants.len() > MAX_TENANTS {
            return PollResult::Everything;
        }
        PollResult::Tenants(self.tenants.iter().copied().map(TenantId::from_uuid).collect())
    }
}

async fn with_deadline<T>(read: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match timeout(DEADLINE, rt::poll_batched(read)).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

#[cfg(test)]
mod tests;
