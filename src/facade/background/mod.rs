//! The background work of a node, as one future that the application spawns: [`Tenantry::run`].
//!
//! Most of it is periodic: [`every`] calls a job at each tick. `notifications` follows the changes of other nodes.
//!
//! Invariants:
//! - At most one `run` is active in a process.
//! - All work runs inside the future of `run`, in no task of its own: when that future ends or is dropped, all of it
//!   has stopped.
//! - No job ends because the landlord is unreachable: the error is logged and the job runs again at its next tick.
use super::Tenantry;
use crate::error::{RunError, StoreError};
use crate::rt;
use crate::store::nodes::Share;
use std::{future::Future, sync::atomic::Ordering, time::Duration};
use tokio::time::{MissedTickBehavior, interval, sleep};

mod notifications;

/// Interval of the heartbeat, of recovery, of login retirement, of closing expired connections and of metrics.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How long after its last heartbeat a node counts as live.
const NODE_LIFETIME: Duration = Duration::from_secs(15);
/// How often a node updates its part of each server's connections. With `share_connections` it claims a share in the
/// landlord; otherwise it computes the equal part of each live node.
const SHARE_INTERVAL: Duration = Duration::from_secs(1);
/// How often every login's connection limit is reconciled. Once a day is enough: a wrong limit matters only if the
/// tenant uses it up.
const LIMIT_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// Delay of the first reconciliation after the start, so that it does not run while a deploy still replaces nodes.
const FIRST_LIMIT_DELAY: Duration = Duration::from_secs(60);

/// Runs `job` at once and then in each `period`, until the future is dropped. A run that takes longer than the period
/// delays the next ones. If a run fails, the error is logged with the name of the job.
async fn every<F, R>(period: Duration, name: &'static str, mut job: F)
where
    F: FnMut() -> R,
    R: Future<Output = Result<(), StoreError>>,
{
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = job().await {
            tracing::warn!(%error, "{name} failed; it is tried again in {period:?}");
        }
    }
}

impl Tenantry {
    /// The background work of this node, as one future that the application spawns. It ends when `shutdown` resolves or
    /// the facade is closed. It sends the heartbeat, recovers abandoned operations, retires old logins and reconciles
    /// connection limits. It follows changes that other nodes make, updates this node's part of each server's
    /// connections, publishes metrics and writes the events of setup links.
    ///
    /// # Errors
    /// [`RunError::AlreadyRunning`] at once if this process already runs it. If the landlord does not answer, the error
    /// is logged and the call is repeated.
    ///
    /// # Cancel safety
    /// Dropping the future has the effect of a crash for the operations that recovery was driving: another node
    /// continues them. Operations that this process has begun are not affected, because they run in tasks of their own.
    pub fn run<S>(&self, shutdown: S) -> impl Future<Output = Result<(), RunError>> + Send + 'static + use<S>
    where
        S: Future<Output: Send> + Send + 'static,
    {
        let this = self.clone();
        async move {
            if this.inner.running.swap(true, Ordering::AcqRel) {
                return Err(RunError::AlreadyRunning);
            }
            let guard = RunningGuard(this.clone());
            this.inner.worker_lock.start();
            tokio::select! {
                _ = shutdown => {}
                () = this.inner.stop.cancelled() => {}
                () = every(HEARTBEAT_INTERVAL, "the heartbeat of this node", || this.send_heartbeat()) => {}
                () = every(HEARTBEAT_INTERVAL, "a recovery pass", || this.recover_operations()) => {}
                () = every(HEARTBEAT_INTERVAL, "the retirement of old logins", || this.retire_logins()) => {}
                () = every(HEARTBEAT_INTERVAL, "closing expired connections", || this.close_expired()) => {}
                () = every(HEARTBEAT_INTERVAL, "publishing metrics", || this.publish_metrics()) => {}
                () = this.reconcile_limits_daily() => {}
                () = every(SHARE_INTERVAL, "claiming this node's share of the connections", || this.claim_share()) => {}
                () = this.follow_changes() => {}
                _ = this.inner.link_events.write_to(&*this.inner.stores.tokens) => {}
            }
            this.leave_nodes().await;
            drop(guard);
            Ok(())
        }
    }

    async fn send_heartbeat(&self) -> Result<(), StoreError> {
        rt::poll_batched(self.inner.nodes.record_heartbeat(&self.inner.node)).await
    }

    /// Continues operations whose worker has died.
    async fn recover_operations(&self) -> Result<(), StoreError> {
        let report = self.inner.recoverer.recover_due().await?;
        if report != Default::default() {
            tracing::info!(?report, "recovery pass");
        }
        Ok(())
    }

    /// Retries to drop logins that a rotation has replaced and could not drop.
    async fn retire_logins(&self) -> Result<(), StoreError> {
        let report = self.retire_due().await?;
        if report != Default::default() {
            tracing::info!(?report, "retirement pass over old logins");
        }
        Ok(())
    }

    /// Closes idle connections that have reached their lifetime or idle timeout.
    async fn close_expired(&self) -> Result<(), StoreError> {
        self.inner.pool.resolver.close_expired();
        Ok(())
    }

    /// Publishes the state of the connection pools as metrics, if the feature is on.
    async fn publish_metrics(&self) -> Result<(), StoreError> {
        #[cfg(feature = "metrics")]
        crate::pool::metrics::publish(&self.pool_stats());
        Ok(())
    }

    async fn reconcile_limits_daily(&self) {
        sleep(FIRST_LIMIT_DELAY).await;
        every(LIMIT_INTERVAL, "reconciling the connection limits of logins", || self.reconcile_limits()).await;
    }

    /// Corrects the connection limits of logins that an older version of the program has created or a person has
    /// altered.
    async fn reconcile_limits(&self) -> Result<(), StoreError> {
        let report = self.inner.servers.limit_logins().await?;
        if report.changed + report.left > 0 {
            tracing::info!(?report, "reconciled the connection limits of tenant logins");
        }
        Ok(())
    }

    /// Keeps this node's connections within its share of each server's limit. If the landlord does not answer, the node
    /// keeps its present share.
    async fn claim_share(&self) -> Result<(), StoreError> {
        match self.inner.pool.shared {
            Some(total) => self.claim_shared_limit(total).await,
            None => self.take_equal_share().await,
        }
    }

    /// With [`share_connections`](crate::Builder::share_connections) the shares of all nodes never add up to more than
    /// the whole: a node that joins waits for what others still have open.
    async fn claim_shared_limit(&self, total: u32) -> Result<(), StoreError> {
        let pool = &self.inner.pool.resolver;
        let claim = self.inner.nodes.claim_share(self.inner.node.id, pool.share_in_use(total), NODE_LIFETIME);
        let share = rt::poll_batched(claim).await?;
        pool.resize(share.of(total));
        pool.set_share(share);
        Ok(())
    }

    /// Without `share_connections` each live node takes an equal part of the limit in each server's row. A node that
    /// joins does not wait, so the sum may exceed that limit until the other nodes have seen it.
    async fn take_equal_share(&self) -> Result<(), StoreError> {
        let live = rt::poll_batched(self.inner.nodes.list_live(NODE_LIFETIME)).await?;
        self.inner.pool.resolver.set_share(Share::equal(live.len()));
        Ok(())
    }

    /// Removes this node's row, so that other nodes see at once that it has left. With shared connections the row must
    /// stay until it expires: this node's connections may still be open, and its share must not be given away.
    async fn leave_nodes(&self) {
        if self.inner.pool.shared.is_none()
            && let Err(error) = self.inner.nodes.leave(self.inner.node.id).await
        {
            tracing::debug!(%error, "could not remove this node's row from the landlord; it will expire");
        }
    }
}

/// Allows `run` to be called again, also when its future is dropped.
struct RunningGuard(Tenantry);
impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.0.inner.running.store(false, Ordering::Release);
    }
}
