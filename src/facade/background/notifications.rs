//! Follows the changes that other nodes make in the landlord.
//!
//! Invariant: the resolver has its long cache lifetime only while the notifications arrive and the registry is the
//! landlord's own. A registry of the application may change without a notification. The lifetime is set back to the
//! short one when the notifications stop, and when the loop ends or is dropped.
use super::Tenantry;
use crate::resolver::PooledResolver;
use crate::store::registry::{Change, PgChanges};
use crate::tenant::TenantId;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::HashSet;

/// Maximum number of changed tenants that are resolved again at once.
const MAX_CONCURRENT_CHECKS: usize = 32;

impl Tenantry {
    /// Invalidates cached tenants as other nodes change them. A tenant that has connections here is also resolved
    /// again, so that connections of an old login are closed without waiting for the next request.
    pub(super) async fn follow_changes(&self) {
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
            let Some(change) = change else { return };
            self.apply_change(change, &mut pending);
        }
    }

    /// Invalidates what the change concerns, and adds to `pending` what has to be read again.
    fn apply_change(&self, change: Change, pending: &mut Pending) {
        let (resolver, pool) = (&self.inner.resolver, &self.inner.pool);
        match change {
            Change::Tenant(id) => {
                resolver.invalidate(id);
                if pool.resolver.has_cached(id) {
                    pending.tenants.insert(id);
                }
            }
            Change::Missed => {
                resolver.invalidate_all();
                pending.servers = true;
                pool.resolver.set_notified(pool.has_complete_changes);
            }
            Change::Lost => {
                pool.resolver.set_notified(false);
                resolver.invalidate_all();
            }
        }
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
