//! The pools of the servers that this resolver's tenants are on, and how many connections each may have.
//!
//! A load creates a server's pool when it joins the first tenant to it. Pools are kept until the resolver closes.
use super::limits::Address;
use super::{PooledResolver, Shared};
use crate::error::ResolveError;
use crate::pool::budget::{PgOpener, PgServer, PoolStats, ServerPool};
use crate::store::nodes::Share;
use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

impl PooledResolver {
    /// The state of each server's connection budget, by host and port. Servers appear when a tenant on them is first
    /// resolved.
    pub fn stats(&self) -> Vec<((String, u16), PoolStats)> {
        self.0.lock_servers().iter().map(|(server, budget)| (server.clone(), budget.stats())).collect()
    }
    /// Changes the maximum connections to each server. Surplus idle connections are closed now, surplus connections in
    /// use when they are returned; [`stats`](Self::stats) shows the progress. Zero is allowed: callers then wait until
    /// they time out.
    pub fn resize(&self, max_connections: u32) {
        self.0.connection_limits.set_own(max_connections);
        self.0.resize_servers();
    }
    /// Closes idle connections that have reached their lifetime or idle timeout.
    pub(crate) fn close_expired(&self) {
        let servers: Vec<_> = self.0.lock_servers().values().cloned().collect();
        servers.iter().for_each(|server| server.close_expired());
    }
    /// Sets this node's share of the limit in each server's row. Until then it is all of it.
    pub(crate) fn set_share(&self, share: Share) {
        self.0.connection_limits.set_share(share);
        self.0.resize_servers();
    }
    /// The share that the open connections need, if all nodes together may have `total` to each server.
    pub(crate) fn share_in_use(&self, total: u32) -> Share {
        let servers = self.0.lock_servers();
        let share = |(address, server): (&Address, &Arc<PgServer>)| {
            self.0.connection_limits.share_of_open(address, server.stats().open, total)
        };
        servers.iter().map(share).max().unwrap_or(Share::NONE)
    }
}

impl Shared {
    pub(super) fn lock_servers(&self) -> MutexGuard<'_, HashMap<Address, Arc<PgServer>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pool of the server at this address. [`ResolveError::Closed`] once the resolver closes.
    pub(super) fn get_or_create_server(&self, host: &str, port: u16) -> Result<Arc<PgServer>, ResolveError> {
        let address = (host.to_owned(), port);
        let mut servers = self.lock_servers();
        if self.stop.is_cancelled() {
            return Err(ResolveError::Closed);
        }
        let new = || {
            Arc::new_cyclic(|me| {
                ServerPool::new(
                    PgOpener::new(me.clone(), self.settings.handover(), self.settings.session_counter.clone()),
                    self.settings.pool_limits(self.connection_limits.limit(&address)),
                )
            })
        };
        Ok(servers.entry(address.clone()).or_insert_with(new).clone())
    }

    pub(super) fn resize_servers(&self) {
        let servers = self.lock_servers();
        servers.iter().for_each(|(address, server)| server.resize(self.connection_limits.limit(address)));
    }
}
