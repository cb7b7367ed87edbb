use super::{PooledResolver, Shared};
use crate::pool::budget::refusal::CountSessions;
use crate::pool::budget::{Handover, Limits};
use crate::store::registry::{ServerRegistry, TenantRegistry};
use crate::store::vault::CredentialVault;
use sqlx::migrate::Migrator;
use std::sync::Arc;
use std::time::Duration;

/// The settings of a [`PooledResolver`]. A zero counts as one.
#[must_use = "a builder does nothing until build()"]
pub struct PooledResolverBuilder {
    pub(super) registry: Arc<dyn TenantRegistry>,
    pub(super) vault: Arc<dyn CredentialVault>,
    pub(super) hosts: Option<Arc<dyn ServerRegistry>>,
    pub(super) settings: Settings,
}

pub(super) struct Settings {
    pub(super) max_connections: u32,
    pub(super) max_connections_per_tenant: u32,
    pub(super) opening: usize,
    pub(super) max_cached: usize,
    pub(super) discard: bool,
    pub(super) ping_after: Duration,
    pub(super) acquire_timeout: Duration,
    pub(super) fresh_for: Duration,
    pub(super) drain_timeout: Duration,
    pub(super) release_timeout: Duration,
    pub(super) head: Option<&'static Migrator>,
    pub(super) counts: Option<Arc<dyn CountSessions>>,
}

impl PooledResolverBuilder {
    pub(super) fn new(registry: Arc<dyn TenantRegistry>, vault: Arc<dyn CredentialVault>) -> Self {
        let settings = Settings {
            max_connections: 90,
            max_connections_per_tenant: 5,
            opening: 4,
            max_cached: 10_000,
            discard: false,
            ping_after: Duration::from_millis(5),
            acquire_timeout: Duration::from_secs(10),
            fresh_for: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(10),
            release_timeout: Duration::from_secs(30),
            head: None,
            counts: None,
        };
        Self { registry, vault, hosts: None, settings }
    }
    /// Where the servers are that directory entries name. Host, port, TLS mode and root certificate of such an entry come
    /// from its server's row alone. Without this call, or where the row is missing, such an entry is
    /// [`UnknownServer`](crate::error::ResolveError::UnknownServer); entries without a server need none.
    pub fn servers(mut self, servers: impl ServerRegistry) -> Self {
        self.hosts = Some(Arc::new(servers));
        self
    }
    /// Most connections to one server, over all its tenants; 90 by default. A hard limit: whoever comes next waits, or
    /// takes the place of a connection that nobody uses.
    pub fn max_connections(mut self, per_server: u32) -> Self {
        self.settings.max_connections = per_server.max(1);
        self
    }
    /// Only tenants whose ledger has the newest of these migrations resolve; the others are
    /// [`Behind`](crate::error::ResolveError::Behind), whatever keeps them. A tenant's ledger is read when it is first resolved,
    /// over one of its own connections, until it is there; one that is further than this program is let in.
    pub fn require_head(mut self, migrations: &'static Migrator) -> Self {
        self.settings.head = Some(migrations);
        self
    }
    /// Most connections to one server that are opened at once; 4 by default. Opening more at once only makes each slower.
    pub fn max_opening(mut self, per_server: usize) -> Self {
        self.settings.opening = per_server.max(1);
        self
    }
    /// Most connections of one tenant; 5 by default, and never more than [`max_connections`](Self::max_connections).
    pub fn max_connections_per_tenant(mut self, n: u32) -> Self {
        self.settings.max_connections_per_tenant = n.max(1);
        self
    }
    /// Most tenants that are remembered; 10,000 by default. One that has no connection costs less than two kilobytes. What was not
    /// asked for for longest is forgotten first.
    pub fn max_cached(mut self, tenants: usize) -> Self {
        self.settings.max_cached = tenants.max(1);
        self
    }
    /// A connection that was idle for longer is asked whether it lives before it is used, which takes a round trip; 5 ms by
    /// default, so that a busy tenant's never are. Zero: always. A session that the server ends within that time fails the
    /// statement that comes next; then all others are asked.
    pub fn ping_after(mut self, idle: Duration) -> Self {
        self.settings.ping_after = idle;
        self
    }
    /// Runs `DISCARD ALL` when a connection comes back: settings, temp tables, prepared statements, advisory locks and LISTEN
    /// end with their user. Off by default: it costs several round trips and sqlx's prepared statements each time (busy tenants
    /// answer about an eighth as many queries: `cargo bench --bench pool -- --only discard`), and between tenants nothing is
    /// shared in any case.
    pub fn discard_on_release(mut self, yes: bool) -> Self {
        self.settings.discard = yes;
        self
    }
    /// How long a query waits for a connection; 10 s by default.
    pub fn acquire_timeout(mut self, limit: Duration) -> Self {
        self.settings.acquire_timeout = limit;
        self
    }
    /// How long an answer counts without asking the registry again; 5 s by default, and a minute while
    /// [`Tenantry::run`](crate::Tenantry::run) hears of changes as they happen. What another node changed is seen after
    /// that time, and at once where the server itself refuses: a suspended tenant, a replaced login.
    pub fn fresh_for(mut self, time: Duration) -> Self {
        self.settings.fresh_for = time;
        self
    }
    /// How long `close()` waits for connections that are out; 10 s by default.
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.settings.drain_timeout = limit;
        self
    }
    /// How long a connection that comes back may take to be ready for its next user: to answer a query that was dropped, to
    /// roll back, to run `DISCARD ALL`. 30 s by default: longer than a statement of a web request, and short enough that a
    /// session which waits for something else does not keep its place in the budget. Then the connection is cut. A
    /// statement that still runs continues until the server notices; `client_connection_check_interval` on the server, or
    /// `statement_timeout` in the tenant's settings, bounds that.
    pub fn release_timeout(mut self, limit: Duration) -> Self {
        self.settings.release_timeout = limit;
        self
    }
    /// Counts the sessions of a login after 53300, for [`AcquireError::LoginLimit`](crate::pool::AcquireError).
    pub(crate) fn count_sessions(mut self, counts: Arc<dyn CountSessions>) -> Self {
        self.settings.counts = Some(counts);
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
    pub(super) fn handover(&self) -> Handover {
        Handover { discard: self.discard, ping_after: self.ping_after, release_timeout: self.release_timeout }
    }
    pub(super) fn limits(&self, budget: u32) -> Limits {
        Limits { budget, connect_permits: self.opening, acquire: self.acquire_timeout }
    }
}

impl std::fmt::Debug for PooledResolverBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PooledResolverBuilder(..)")
    }
}
