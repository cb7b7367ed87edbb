//! The background work of a node, as one future that the application spawns: [`Tenantry::run`]. Also
//! [`Tenantry::problems`], for a readiness probe.
//!
//! Invariants:
//! - At most one `run` is active in a process.
//! - No loop ends because the landlord is unreachable: it logs the error and tries again on its next tick.
//! - When `run` ends or is dropped, the resolver is set back to its short cache lifetime, because it gets no
//!   notifications.
use super::Tenantry;
use crate::error::{RunError, StoreError};
use crate::resolver::PooledResolver;
use crate::rt;
use crate::store::nodes::{Node, NodeId, Share};
use crate::store::registry::{Change, PgChanges};
use crate::tenant::TenantId;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use std::{collections::HashSet, future::Future, sync::atomic::Ordering, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

/// Interval of the heartbeat, of recovery, of login retirement and of metrics. A node counts as live for three
/// intervals after its last heartbeat.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum number of changed tenants that are resolved again at once.
const MAX_CONCURRENT_CHECKS: usize = 32;
/// How often a node claims its share of the connections, if the nodes share them.
const SHARE_INTERVAL: Duration = Duration::from_secs(1);

/// How often every login's connection limit is reconciled. Once a day is enough: a wrong limit matters only if the
/// tenant uses it up.
const LIMIT_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// Delay of the first reconciliation after the start, so that it does not run while a deploy still replaces nodes.
const FIRST_LIMIT_DELAY: Duration = Duration::from_secs(60);

/// One reason why this node is not ready to serve: see [`Tenantry::problems`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HealthIssue {
    /// Stable code for programs: `closed`, `schema`, `keys`, `no_server` or `landlord`.
    pub code: &'static str,
    /// Description for people. It may change between versions.
    pub text: String,
}
impl HealthIssue {
    fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl Tenantry {
    /// The background work of this node, as one future that the application spawns. It ends when `shutdown` resolves or
    /// the facade is closed. It sends the heartbeat, recovers abandoned operations, retires old logins and reconciles
    /// connection limits. It follows changes that other nodes make, claims this node's share of the connections if the
    /// nodes share them, publishes metrics and writes the events of setup links.
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
            let node = &this.inner.node;
            tokio::select! {
                _ = shutdown => {}
                () = this.inner.stop.cancelled() => {}
                () = this.heartbeat_loop(node) => {}
                () = this.recovery_loop() => {}
                () = this.retirement_loop() => {}
                () = this.metrics_loop() => {}
                _ = this.inner.link_events.write_to(&*this.inner.stores.tokens) => {}
                () = this.limit_loop() => {}
                () = this.notification_loop() => {}
                () = this.share_loop(node.id) => {}
            }
            // Removing the row lets other nodes see at once that this one has left. With shared connections the row
            // must stay until it expires: this node's connections may still be open, and its share must not be given
            // away.
            if this.inner.pool.shared.is_none()
                && let Err(error) = this.inner.nodes.leave(node.id).await
            {
                tracing::debug!(%error, "could not remove this node's row from the landlord; it will expire");
            }
            drop(guard);
            Ok(())
        }
    }

    async fn heartbeat_loop(&self, node: &Node) {
        let mut ticks = interval(HEARTBEAT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = rt::poll_batched(self.inner.nodes.beat(node)).await {
                tracing::warn!(%error, "could not record the heartbeat of this node; trying again");
            }
        }
    }

    async fn recovery_loop(&self) {
        let mut ticks = interval(HEARTBEAT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.inner.recoverer.pass().await {
                Ok(report) if report != Default::default() => tracing::info!(?report, "recovery pass"),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "a recovery pass failed; the next pass tries again"),
            }
        }
    }

    /// Retries to drop logins that a rotation has replaced and could not drop.
    async fn retirement_loop(&self) {
        let mut ticks = interval(HEARTBEAT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.retire_due().await {
                Ok(report) if report != Default::default() => {
                    tracing::info!(?report, "retirement pass over old logins")
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "could not retire old logins; the next pass tries again"),
            }
        }
    }

    /// Corrects the connection limits of logins that an older version of the program has created or a person has
    /// altered.
    async fn limit_loop(&self) {
        let mut ticks = interval_at(Instant::now() + FIRST_LIMIT_DELAY, LIMIT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.inner.servers.limit_logins().await {
                Ok(report) if report.changed + report.left > 0 => {
                    tracing::info!(?report, "reconciled the connection limits of tenant logins");
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "could not reconcile the connection limits of logins; trying again")
                }
            }
        }
    }

    /// Publishes the state of the connection pools as metrics, if the feature is on.
    async fn metrics_loop(&self) {
        let mut ticks = interval(HEARTBEAT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            #[cfg(feature = "metrics")]
            crate::pool::metrics::publish(&self.pool_stats());
        }
    }

    /// Keeps this node's connections within its share of each server's limit. If the landlord does not answer, the node
    /// keeps its present share.
    async fn share_loop(&self, node: NodeId) {
        let mut ticks = interval(SHARE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let claimed = match self.inner.pool.shared {
                Some(total) => self.claim_share(node, total).await,
                None => self.take_equal_share().await,
            };
            if let Err(error) = claimed {
                tracing::warn!(%error, "could not read this node's share of the connections; it is unchanged");
            }
        }
    }

    /// With [`share_connections`](crate::Builder::share_connections) the shares of all nodes never add up to more than
    /// the whole: a node that joins waits for what others still have open.
    async fn claim_share(&self, node: NodeId, total: u32) -> Result<(), StoreError> {
        let pool = &self.inner.pool.resolver;
        let claim = self.inner.nodes.claim(node, pool.share_in_use(total), HEARTBEAT_INTERVAL * 3);
        let share = rt::poll_batched(claim).await?;
        pool.resize(share.of(total));
        pool.set_share(share);
        Ok(())
    }

    /// Without it each live node takes an equal part of the limit in each server's row. A node that joins does not wait,
    /// so the sum may exceed that limit until the other nodes have seen it.
    async fn take_equal_share(&self) -> Result<(), StoreError> {
        let live = rt::poll_batched(self.inner.nodes.live(HEARTBEAT_INTERVAL * 3)).await?;
        self.inner.pool.resolver.set_share(Share::equal(live.len()));
        Ok(())
    }

    /// Invalidates cached tenants as other nodes change them. A tenant that has connections here is also resolved
    /// again, so that connections of an old login are closed without waiting for the next request.
    async fn notification_loop(&self) {
        let changes = PgChanges::new(self.inner.background.clone());
        let mut changes = changes.poll_every(self.inner.change_poll_interval).follow();
        let subscription = Subscription(&self.inner.pool.resolver);
        let (mut checks, mut pending) = (FuturesUnordered::new(), Pending::default());
        loop {
            while checks.len() < MAX_CONCURRENT_CHECKS
                && let Some(check) = pending.take_next()
            {
                checks.push(check.run(subscription.0));
            }
            let change = tokio::select! {
                biased;
                change = changes.next() => change,
                Some(()) = checks.next() => continue,
            };
            match change {
                Some(Change::Tenant(id)) => {
                    self.inner.resolver.invalidate(id);
                    if subscription.0.has_cached(id) {
                        pending.tenants.insert(id);
                    }
                }
                Some(Change::Missed) => {
                    self.inner.resolver.invalidate_all();
                    pending.servers = true;
                    subscription.0.set_notified(self.inner.pool.has_complete_changes);
                }
                Some(Change::Lost) => {
                    subscription.0.set_notified(false);
                    self.inner.resolver.invalidate_all();
                }
                None => return,
            }
        }
    }

    /// Reasons why this node is not ready to serve, for a readiness probe. Empty if there are none. It queries the
    /// landlord and the key provider without a deadline of its own, so call it with a timeout.
    pub async fn problems(&self) -> Vec<HealthIssue> {
        let mut problems = vec![];
        if self.is_closed() {
            problems.push(HealthIssue::new("closed", "tenantry is closed: close() was called"));
        }
        if let Err(error) = crate::store::schema::check(&self.inner.landlord).await {
            problems.push(HealthIssue::new("schema", crate::error::chain(&error)));
            return problems;
        }
        if let Err(error) = self.inner.vault.check_keys().await {
            problems.push(HealthIssue::new("keys", crate::error::chain(&error)));
        }
        match self.inner.stores.servers.servers().await {
            Ok(servers) if servers.is_empty() => {
                problems.push(HealthIssue::new("no_server", "no PostgreSQL server is set up; call servers().set_up()"));
            }
            Ok(_) => {}
            Err(error) => problems.push(HealthIssue::new("landlord", crate::error::chain(&error))),
        }
        problems
    }
}

/// Changes that this node has not checked yet. It contains only tenants that have connections here, so the size of the
/// resolver's cache bounds it.
#[derive(Default)]
struct Pending {
    tenants: HashSet<TenantId>,
    /// Whether to check the servers' addresses, because a relocation may be among the changes that were missed.
    servers: bool,
}
impl Pending {
    fn take_next(&mut self) -> Option<Check> {
        if std::mem::take(&mut self.servers) {
            return Some(Check::Servers);
        }
        let next = self.tenants.iter().next().copied()?;
        self.tenants.remove(&next);
        Some(Check::Tenant(next))
    }
}

/// One check that the notification loop runs.
enum Check {
    Servers,
    Tenant(TenantId),
}
impl Check {
    async fn run(self, resolver: &PooledResolver) {
        match self {
            Self::Servers => resolver.check_servers().await,
            Self::Tenant(id) => resolver.refresh_if_cached(id).await,
        }
    }
}

/// Sets the resolver back to its short cache lifetime when `run` ends or its future is dropped. Without notifications
/// an entry with the long lifetime would hide changes of other nodes.
struct Subscription<'a>(&'a PooledResolver);
impl Drop for Subscription<'_> {
    fn drop(&mut self) {
        self.0.set_notified(false);
    }
}

/// Allows `run` to be called again, also when its future is dropped.
struct RunningGuard(Tenantry);
impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.0.inner.running.store(false, Ordering::Release);
    }
}
