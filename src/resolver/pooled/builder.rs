//! The settings of a [`PooledResolver`], with their defaults.
//!
//! [`Tenantry`](crate::Tenantry) builds its resolver here; an application may build one of its own over any registry
//! and vault. The limits that most applications set are methods of both builders; all other settings are in
//! [`PoolSettings`], which both builders take. Building opens no connection and starts no task.
use super::{PooledResolver, Shared};
use crate::pool::budget::login_limit::CountSessions;
use crate::pool::budget::{Handover, Lifetimes, PermitLimit, PoolLimits};
use crate::server::AddressPolicy;
use crate::store::registry::{ServerRegistry, TenantRegistry};
use crate::store::vault::CredentialVault;
use std::sync::Arc;
use std::time::Duration;

/// Builds a [`PooledResolver`]. For every maximum number, zero is taken as one.
#[must_use = "a builder does nothing until build()"]
pub struct PooledResolverBuilder {
    pub(super) registry: Arc<dyn TenantRegistry>,
    pub(super) vault: Arc<dyn CredentialVault>,
    pub(super) server_registry: Option<Arc<dyn ServerRegistry>>,
    pub(super) settings: PoolSettings,
}

/// The settings of a [`PooledResolver`] that few applications change: of its connections and of its cache. The
/// `pool` method of a builder ([`Builder::pool`](crate::Builder::pool), [`PooledResolverBuilder::pool`]) gives them to
/// a closure. For every maximum number, zero is taken as one.
#[must_use = "the settings have no effect until they are returned to the builder"]
#[derive(Clone)]
pub struct PoolSettings {
    pub(super) max_connections: u32,
    pub(super) max_connections_per_tenant: u32,
    pub(super) max_opening: PermitLimit,
    pub(super) max_cached: usize,
    pub(super) discard_on_release: bool,
    pub(super) ping_after: Duration,
    pub(super) acquire_timeout: Duration,
    pub(super) fresh_for: Duration,
    pub(super) drain_timeout: Duration,
    pub(super) release_timeout: Duration,
    pub(super) lifetimes: Lifetimes,
    pub(super) session_counter: Option<Arc<dyn CountSessions>>,
    pub(super) policy: AddressPolicy,
}

impl PooledResolverBuilder {
    pub(super) fn new(registry: Arc<dyn TenantRegistry>, vault: Arc<dyn CredentialVault>) -> Self {
        Self { registry, vault, server_registry: None, settings: PoolSettings::new() }
    }
    /// The registry of the servers that directory entries name. If an entry names a server, its host, port, TLS mode
    /// and root certificate come from that server's row alone. Without this call, or if the row is missing, a tenant
    /// with such an entry fails with [`UnknownServer`](crate::error::ResolveError::UnknownServer). Entries without a
    /// server name need no registry.
    pub fn servers(mut self, servers: impl ServerRegistry) -> Self {
        self.server_registry = Some(Arc::new(servers));
        self
    }
    /// Maximum connections to one server, over all its tenants; 90 by default, below PostgreSQL's default
    /// `max_connections` of 100. The limit is hard: above it, a caller waits, or an idle connection of a less
    /// frequently used tenant is closed for it.
    pub fn max_connections(mut self, per_server: u32) -> Self {
        self.settings.max_connections = per_server.max(1);
        self
    }
    /// Maximum connections of one tenant to one server; 5 by default, and never more than
    /// [`max_connections`](Self::max_connections).
    pub fn max_connections_per_tenant(mut self, n: u32) -> Self {
        self.settings.max_connections_per_tenant = n.max(1);
        self
    }
    /// Maximum time that a query waits for a connection, including the time to open one; 10 s by default.
    pub fn acquire_timeout(mut self, limit: Duration) -> Self {
        self.settings.acquire_timeout = limit;
        self
    }
    /// Changes the settings that few applications change. A second call continues with the result of the first.
    pub fn pool(mut self, change: impl FnOnce(PoolSettings) -> PoolSettings) -> Self {
        self.settings = change(self.settings);
        self
    }
    /// Counts a login's sessions when the server refuses it with 53300. Without it that error stays a
    /// [`ConnectTimeout`](crate::pool::AcquireError::ConnectTimeout) and never becomes a
    /// [`LoginLimit`](crate::pool::AcquireError::LoginLimit).
    pub(crate) fn count_sessions(mut self, counter: Arc<dyn CountSessions>) -> Self {
        self.settings.session_counter = Some(counter);
        self
    }
    /// Sets which addresses of entries the resolver may connect to. Default: all.
    pub(crate) fn address_policy(mut self, policy: AddressPolicy) -> Self {
        self.settings.policy = policy;
        self
    }
    /// Builds the resolver. Opens no connection and starts no task.
    pub fn build(mut self) -> PooledResolver {
        let settings = &mut self.settings;
        settings.max_connections_per_tenant = settings.max_connections_per_tenant.min(settings.max_connections);
        PooledResolver(Arc::new(Shared::new(self)))
    }
}

impl PoolSettings {
    /// The default of every setting. Not public, so that a closure cannot discard what was set before it.
    pub(crate) fn new() -> Self {
        Self {
            max_connections: 90,
            max_connections_per_tenant: 5,
            max_opening: PermitLimit::Adaptive,
            max_cached: 10_000,
            discard_on_release: false,
            ping_after: Duration::from_millis(5),
            acquire_timeout: Duration::from_secs(10),
            fresh_for: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(10),
            release_timeout: Duration::from_secs(30),
            lifetimes: Lifetimes {
                max_lifetime: Some(Duration::from_secs(30 * 60)),
                idle_timeout: Some(Duration::from_secs(10 * 60)),
            },
            session_counter: None,
            policy: AddressPolicy::default(),
        }
    }
    /// Fixes how many connections to one server are opened at the same time. By default the pool chooses the number:
    /// between 4 and a third of `max_connections`, more while opening takes no longer for it (a distant server, TLS),
    /// fewer once it does, and 4 after the server could not be reached.
    pub fn max_opening(mut self, per_server: usize) -> Self {
        self.max_opening = PermitLimit::Fixed(per_server.max(1));
        self
    }
    /// Maximum tenants in the cache; 10,000 by default. A tenant without a connection takes less than two kilobytes.
    /// The least recently used tenants are evicted first; their idle connections are closed.
    pub fn max_cached(mut self, tenants: usize) -> Self {
        self.max_cached = tenants.max(1);
        self
    }
    /// A connection that was idle for longer than this is pinged before use, which takes a round trip. 5 ms by default,
    /// so that connections of a busy tenant are not pinged; zero pings each time. If the server ends a session within
    /// this time, the next statement on it fails, and then every idle connection to that server is pinged before its
    /// next use.
    pub fn ping_after(mut self, idle: Duration) -> Self {
        self.ping_after = idle;
        self
    }
    /// Maximum age of a connection; 30 min by default, as in sqlx's own pool. It bounds what a session collects in its
    /// memory, and how long it keeps plans of an older schema after a person has changed the tenant's tables. An older
    /// connection is replaced before its next use. The limit of each connection is up to a fifth shorter, at random, so
    /// that connections which were opened together are not replaced together. `None`: no limit.
    pub fn max_lifetime(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.lifetimes.max_lifetime = limit.into();
        self
    }
    /// How long a connection may be idle before it is closed; 10 min by default, as in sqlx's own pool: a session that
    /// nothing uses takes several megabytes of the server's memory. Up to a fifth shorter, as with
    /// [`max_lifetime`](Self::max_lifetime). `None`: no limit.
    ///
    /// [`Tenantry::run`](crate::Tenantry::run) looks for such connections every 5 s. Without it they are found when a
    /// caller needs a connection to the same server and none is ready for use.
    pub fn idle_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.lifetimes.idle_timeout = limit.into();
        self
    }
    /// Whether to run `DISCARD ALL` when a connection is returned. It removes settings, temporary tables, prepared
    /// statements, advisory locks and `LISTEN`, so that the tenant's next caller does not see them. `false` by default:
    /// it costs several round trips and sqlx's prepared statements each time (a busy tenant runs about an eighth as
    /// many queries: `cargo bench --bench pool -- --only discard`). Different tenants share no connection in either
    /// case.
    pub fn discard_on_release(mut self, yes: bool) -> Self {
        self.discard_on_release = yes;
        self
    }
    /// How long a resolved name is used before the registry is read again; 5 s by default. It is at least a minute
    /// while [`Tenantry::run`](crate::Tenantry::run) receives notifications of changes. A change by another node takes
    /// effect after this time at the latest, and at once if the server itself refuses the login: a suspended tenant, a
    /// replaced login.
    pub fn fresh_for(mut self, time: Duration) -> Self {
        self.fresh_for = time;
        self
    }
    /// Maximum time that `close()` waits for connections in use; 10 s by default. Connections that are still in use
    /// after it close when they are returned.
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.drain_timeout = limit;
        self
    }
    /// Maximum time for clearing a returned connection: reading the answer of a query that was dropped, rolling back,
    /// running `DISCARD ALL`. 30 s by default: longer than a statement of a web request, and short enough that a
    /// session that never becomes ready does not keep its slot. After this time the connection is closed. The server
    /// may continue to run the statement until it notices; `client_connection_check_interval` on the server or
    /// `statement_timeout` in the tenant's settings bounds that.
    pub fn release_timeout(mut self, limit: Duration) -> Self {
        self.release_timeout = limit;
        self
    }

    pub(super) fn handover(&self) -> Handover {
        Handover {
            discard: self.discard_on_release,
            ping_after: self.ping_after,
            release_timeout: self.release_timeout,
            lifetimes: self.lifetimes,
        }
    }
    pub(super) fn pool_limits(&self, budget: u32) -> PoolLimits {
        PoolLimits { budget, connect_permits: self.max_opening, acquire: self.acquire_timeout }
    }
}

impl std::fmt::Debug for PooledResolverBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PooledResolverBuilder(..)")
    }
}

impl std::fmt::Debug for PoolSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PoolSettings(..)")
    }
}
