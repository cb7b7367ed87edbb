//! What must go on while the host runs, as one future of the host's.
use super::Tenantry;
use crate::error::RunError;
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

/// How often a node says that it lives, and looks for what dead workers left. A node counts as live for three beats.
const BEAT: Duration = Duration::from_secs(5);
/// Tenants that have changed, looked at at once.
const FOLLOWED: usize = 32;
/// How often it asks for its part of the connections, if they are divided.
const DIVIDE: Duration = Duration::from_secs(1);

/// How often every login's connection limit is reconciled: a wrong one does no harm within a day.
const LIMITS: Duration = Duration::from_secs(24 * 3600);
/// The first time comes after the start, when a deploy has settled.
const FIRST_LIMITS: Duration = Duration::from_secs(60);

/// Something that a readiness probe should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HealthIssue {
    /// Stable, for machines.
    pub code: &'static str,
    /// For people.
    pub text: String,
}
impl HealthIssue {
    fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl Tenantry {
    /// Everything that must go on in the background, as one future that the host spawns: heartbeat, recovery, what other
    /// nodes change, and this node's part of the connections if they are shared. Ends when `shutdown` does or the facade
    /// is closed. Dropping it is like the death of the process: recovery on another node goes on.
    ///
    /// # Errors
    /// `AlreadyRunning` at once, if it runs in this process already. A landlord that does not answer is logged and
    /// asked again.
    pub fn run<S>(&self, shutdown: S) -> impl Future<Output = Result<(), RunError>> + Send + 'static + use<S>
    where
        S: Future<Output: Send> + Send + 'static,
    {
        let this = self.clone();
        async move {
            if this.inner.running.swap(true, Ordering::AcqRel) {
                return Err(RunError::AlreadyRunning);
            }
            let running = Running(this.clone());
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
            // Its row would be forgotten in time; but a part of the connections that may still be open must count until
            // then.
            if this.inner.pool.shared.is_none()
                && let Err(error) = this.inner.nodes.leave(node.id).await
            {
                tracing::debug!(%error, "the node's row stays until it expires");
            }
            drop(running);
            Ok(())
        }
    }

    async fn heartbeat_loop(&self, node: &Node) {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            if let Err(error) = rt::poll_batched(self.inner.nodes.beat(node)).await {
                tracing::warn!(%error, "heartbeat failed");
            }
        }
    }

    async fn recovery_loop(&self) {
        let mut look = interval(BEAT);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            match self.inner.recoverer.pass().await {
                Ok(report) if report != Default::default() => tracing::info!(?report, "recovery"),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "recovery failed"),
            }
        }
    }

    /// Logins that were replaced and could not be dropped.
    async fn retirement_loop(&self) {
        let mut look = interval(BEAT);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            match self.retire_due().await {
                Ok(report) if report != Default::default() => tracing::info!(?report, "retired logins"),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "logins that wait to be dropped were not looked at"),
            }
        }
    }

    /// Logins that an older node has made, or that a person has altered.
    async fn limit_loop(&self) {
        let mut look = interval_at(Instant::now() + FIRST_LIMITS, LIMITS);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            match self.inner.servers.limit_logins().await {
                Ok(report) if report.changed + report.left > 0 => tracing::info!(?report, "connection limits"),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "connection limits of logins were not looked at"),
            }
        }
    }

    /// How the budgets stand.
    async fn metrics_loop(&self) {
        let mut look = interval(BEAT);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            #[cfg(feature = "metrics")]
            crate::pool::metrics::publish(&self.pool_stats());
        }
    }

    /// Keeps to this node's part of the connections. Without an answer it keeps the part that it has.
    async fn share_loop(&self, node: NodeId) {
        let (Some(total), pool) = (self.inner.pool.shared, &self.inner.pool.resolver) else {
            return std::future::pending().await;
        };
        let mut look = interval(DIVIDE);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let open = pool.stats().into_iter().map(|(_, stats)| stats.open).max().unwrap_or_default();
            let claim = self.inner.nodes.claim(node, Share::holding(open, total), BEAT * 3);
            match rt::poll_batched(claim).await {
                Ok(share) => pool.resize(share.of(total)),
                Err(error) => tracing::warn!(%error, "the landlord does not say what part of the connections is ours"),
            }
        }
    }

    /// Forgets what other nodes have changed, as they change it.
    async fn notification_loop(&self) {
        let changes = PgChanges::new(self.inner.background.clone());
        let mut changes = changes.poll_every(self.inner.change_poll_interval).follow();
        let listening = Listening(&self.inner.pool.resolver);
        let (mut following, mut pending) = (FuturesUnordered::new(), Pending::default());
        loop {
            while following.len() < FOLLOWED
                && let Some(check) = pending.next()
            {
                following.push(check.run(listening.0));
            }
            let change = tokio::select! {
                biased;
                change = changes.next() => change,
                Some(()) = following.next() => continue,
            };
            match change {
                Some(Change::Tenant(id)) => {
                    self.inner.resolver.invalidate(id);
                    if listening.0.knows(id) {
                        pending.tenants.insert(id);
                    }
                }
                Some(Change::Missed) => {
                    self.inner.resolver.invalidate_all();
                    pending.servers = true;
                    listening.0.set_notified(self.inner.pool.told);
                }
                Some(Change::Lost) => {
                    listening.0.set_notified(false);
                    self.inner.resolver.invalidate_all();
                }
                None => return,
            }
        }
    }

    /// For a readiness probe: empty when all is well. Asks the landlord, so give it a deadline.
    pub async fn problems(&self) -> Vec<HealthIssue> {
        let mut problems = vec![];
        if self.is_closed() {
            problems.push(HealthIssue::new("closed", "the facade is closed"));
        }
        if let Err(error) = crate::store::schema::check(&self.inner.landlord).await {
            problems.push(HealthIssue::new("schema", crate::error::chain(&error)));
            return problems;
        }
        if let Err(error) = self.inner.vault.check_keys().await {
            problems.push(HealthIssue::new("keys", crate::error::chain(&error)));
        }
        match self.inner.stores.servers.servers().await {
            Ok(servers) if servers.is_empty() => problems.push(HealthIssue::new("no_server", "no server is set up")),
            Ok(_) => {}
            Err(error) => problems.push(HealthIssue::new("landlord", crate::error::chain(&error))),
        }
        problems
    }
}

/// Changes that this node has not checked yet. Only tenants that are connected here are kept, so the cache bounds them.
#[derive(Default)]
struct Pending {
    tenants: HashSet<TenantId>,
    /// A relocation may be among the changes that were missed.
    servers: bool,
}
impl Pending {
    fn next(&mut self) -> Option<Check> {
        if std::mem::take(&mut self.servers) {
            return Some(Check::Servers);
        }
        let next = self.tenants.iter().next().copied()?;
        self.tenants.remove(&next);
        Some(Check::Tenant(next))
    }
}

enum Check {
    Servers,
    Tenant(TenantId),
}
impl Check {
    async fn run(self, resolver: &PooledResolver) {
        match self {
            Self::Servers => resolver.check_servers().await,
            Self::Tenant(id) => resolver.follow(id).await,
        }
    }
}

/// Says that nobody listens, also when the future is dropped.
struct Listening<'a>(&'a PooledResolver);
impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.set_notified(false);
    }
}

/// Says that nobody runs, also when the future is dropped.
struct Running(Tenantry);
impl Drop for Running {
    fn drop(&mut self) {
        self.0.inner.running.store(false, Ordering::Release);
    }
}
