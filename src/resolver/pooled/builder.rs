use super::{PooledResolver, Shared};
use crate::registry::TenantRegistry;
use crate::vault::CredentialVault;
use std::sync::Arc;
use std::time::Duration;

/// The settings of a [`PooledResolver`]. A zero counts as one.
#[must_use = "a builder does nothing until build()"]
pub struct PooledResolverBuilder {
    pub(super) registry: Arc<dyn TenantRegistry>,
    pub(super) vault: Arc<dyn CredentialVault>,
    pub(super) settings: Settings,
}

pub(super) struct Settings {
    pub(super) max_connections: u32,
    pub(super) max_connections_per_tenant: u32,
    pub(super) max_pools: usize,
    pub(super) acquire_timeout: Duration,
    pub(super) fresh_for: Duration,
    pub(super) drain_timeout: Duration,
}

impl PooledResolverBuilder {
    pub(super) fn new(registry: Arc<dyn TenantRegistry>, vault: Arc<dyn CredentialVault>) -> Self {
        let settings = Settings {
            max_connections: 90,
            max_connections_per_tenant: 5,
            max_pools: 1000,
            acquire_timeout: Duration::from_secs(10),
            fresh_for: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(10),
        };
        Self { registry, vault, settings }
    }
    /// Most connections to one server; 90 by default. As many tenants of it have a pool at once as fit: with five
    /// connections each, 18. The connections of an evicted pool that are still out come on top.
    pub fn max_connections(mut self, per_server: u32) -> Self {
        self.settings.max_connections = per_server.max(1);
        self
    }
    /// Most connections of one tenant; 5 by default, and never more than [`max_connections`](Self::max_connections).
    pub fn max_connections_per_tenant(mut self, n: u32) -> Self {
        self.settings.max_connections_per_tenant = n.max(1);
        self
    }
    /// Most pools over all servers; 1000 by default. What was not used for longest is closed first.
    pub fn max_pools(mut self, n: usize) -> Self {
        self.settings.max_pools = n.max(1);
        self
    }
    /// How long a query waits for a connection; 10 s by default.
    pub fn acquire_timeout(mut self, limit: Duration) -> Self {
        self.settings.acquire_timeout = limit;
        self
    }
    /// How long an answer counts without asking the registry again; 5 s by default. What another node changed is seen
    /// after that time, and at once where the server itself refuses: a suspended tenant, a replaced login.
    pub fn fresh_for(mut self, time: Duration) -> Self {
        self.settings.fresh_for = time;
        self
    }
    /// How long `close()` waits for connections that are out; 10 s by default.
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.settings.drain_timeout = limit;
        self
    }
    /// The resolver. Opens nothing, starts nothing.
    pub fn build(mut self) -> PooledResolver {
        let settings = &mut self.settings;
        settings.max_connections_per_tenant = settings.max_connections_per_tenant.min(settings.max_connections);
        PooledResolver(Arc::new(Shared::new(self)))
    }
}

impl Settings {
    pub(super) fn pools_per_server(&self) -> usize {
        (self.max_connections / self.max_connections_per_tenant).max(1) as usize
    }
}

impl std::fmt::Debug for PooledResolverBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PooledResolverBuilder(..)")
    }
}
