//! Tenants by name, in memory; their connections under one budget for each server.
use super::ConnectionResolver;
use crate::error::ResolveError;
use crate::pool::budget::{PgOpener, PgServer, PoolStats, ServerPool};
use crate::pool::{Renew, TenantPool};
use crate::store::registry::{ServerRegistry, TenantRegistry};
use crate::store::vault::CredentialVault;
use crate::tenant::{TenantId, TenantRef};
use async_trait::async_trait;
use cache::{Cache, Limits};
use flight::Flights;
use futures_util::future::join_all;
use lookup_cache::LookupCache;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

mod builder;
mod cache;
mod flight;
mod load;
mod lookup_cache;
mod servers;
pub use builder::PooledResolverBuilder;

/// How long an answer counts while changes are told. Not for ever: triggers can be switched off.
const TOLD: Duration = Duration::from_secs(60);

/// Resolves through a registry and a vault. A handle: cloning it is one `Arc`.
///
/// All tenants of a server share its budget of connections, and none but that: a tenant that nobody asks for has neither a
/// connection nor a task. Who finds the budget used up waits its turn, or takes the place of the idle connection whose
/// tenant is asked for least. Connections are closed when their tenant's entry changes, when the tenant is refused, and
/// when it is forgotten because there are too many; a [`TenantPool`] then finds its next ones by itself.
///
/// ```no_run
/// # async fn example(landlord: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use tenantry::ConnectionResolver;
/// use tenantry::registry::PgTenantRegistry;
/// use tenantry::resolver::PooledResolver;
/// use tenantry::vault::{LocalKeyring, PgVault};
///
/// let keys = Arc::new(LocalKeyring::from_env("TENANTRY_KEYS")?);
/// let registry = PgTenantRegistry::new(landlord.clone());
/// let vault = PgVault::new(landlord, keys);
/// let resolver = PooledResolver::builder(registry.clone(), vault).servers(registry).max_connections(60).build();
/// let db = resolver.resolve("acme".into()).await?;
/// let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&db).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PooledResolver(Arc<Shared>);

struct Shared {
    registry: Arc<dyn TenantRegistry>,
    vault: Arc<dyn CredentialVault>,
    /// Where the servers are that entries name.
    hosts: Option<Arc<dyn ServerRegistry>>,
    settings: builder::Settings,
    state: Mutex<State>,
    /// The cache's own, for reading.
    names: Arc<LookupCache>,
    /// Of each server; it may change.
    budget: AtomicU32,
    /// By host and port. Taken after `state`, if both are.
    servers: Mutex<HashMap<(String, u16), Arc<PgServer>>>,
    /// Cancelled under both locks: what is kept after it would never be closed.
    stop: CancellationToken,
}

/// No future and no pool may be dropped under its lock that would take the lock itself: flights are weak here.
struct State {
    cache: Cache,
    flights: Flights,
}

impl PooledResolver {
    /// How each server's budget stands, by host and port.
    pub fn stats(&self) -> Vec<((String, u16), PoolStats)> {
        self.0.servers().iter().map(|(server, budget)| (server.clone(), budget.stats())).collect()
    }
    /// From now on at most so many connections to each server. What is idle above that is closed at once, what is in use
    /// when it comes back: [`stats`](Self::stats) tells when it is so.
    pub fn resize(&self, max_connections: u32) {
        let servers = self.0.servers();
        self.0.budget.store(max_connections, Relaxed);
        servers.values().for_each(|server| server.resize(max_connections));
    }
    /// Somebody tells this resolver what changes on other nodes: its answers count for longer. Or nobody does any more.
    pub(crate) fn set_notified(&self, told: bool) {
        let fresh_for = self.0.settings.fresh_for;
        self.0.names.count_for(if told { fresh_for.max(TOLD) } else { fresh_for });
    }
    /// Whatever has changed about a tenant that is connected here is looked at now: connections that it has by an old login
    /// are closed, without anybody asking for it.
    pub(crate) async fn follow(&self, tenant: TenantId) {
        if self.knows(tenant)
            && let Err(error) = self.resolve(TenantRef::Id(tenant)).await
        {
            tracing::debug!(%tenant, %error, "a tenant that has changed");
        }
    }
    /// Whether the tenant is connected here.
    pub(crate) fn knows(&self, tenant: TenantId) -> bool {
        self.0.state().cache.knows(tenant)
    }
    /// Over a registry and a vault; `Arc<dyn …>` goes in too. Tenants on registered servers need
    /// [`servers`](PooledResolverBuilder::servers) as well.
    pub fn builder(registry: impl TenantRegistry, vault: impl CredentialVault) -> PooledResolverBuilder {
        PooledResolverBuilder::new(Arc::new(registry), Arc::new(vault))
    }
}

impl Shared {
    fn new(PooledResolverBuilder { registry, vault, hosts, settings }: PooledResolverBuilder) -> Self {
        let limits = Limits { pools: settings.max_cached, fresh_for: settings.fresh_for };
        let cache = Cache::new(limits, Instant::now());
        let names = cache.names();
        let state = Mutex::new(State { cache, flights: Flights::new() });
        let (servers, stop) = Default::default();
        Self {
            registry,
            vault,
            hosts,
            budget: AtomicU32::new(settings.max_connections),
            settings,
            state,
            names,
            servers,
            stop,
        }
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<(String, u16), Arc<PgServer>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn server(&self, host: &str, port: u16) -> Result<Arc<PgServer>, ResolveError> {
        let mut servers = self.servers();
        if self.stop.is_cancelled() {
            return Err(ResolveError::Closed);
        }
        let new = || {
            Arc::new_cyclic(|me| {
                ServerPool::new(
                    PgOpener::new(me.clone(), self.settings.handover(), self.settings.counts.clone()),
                    self.settings.limits(self.budget.load(Relaxed)),
                )
            })
        };
        Ok(servers.entry((host.to_owned(), port)).or_insert_with(new).clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cached(&self, tenant: &TenantRef<'_>) -> Option<TenantPool> {
        self.names.hit(tenant)
    }

    fn retire(&self, pools: impl IntoIterator<Item = TenantPool>) {
        pools.into_iter().for_each(|pool| pool.retire());
    }
}

#[async_trait]
impl ConnectionResolver for PooledResolver {
    fn cached(&self, tenant: &TenantRef<'_>) -> Option<TenantPool> {
        self.0.cached(tenant)
    }

    async fn resolve(&self, tenant: TenantRef<'_>) -> Result<TenantPool, ResolveError> {
        if let Some(pool) = self.0.cached(&tenant) {
            return Ok(pool);
        }
        if self.0.state().cache.is_nobody(&tenant, Instant::now()) {
            return Err(ResolveError::Unknown);
        }
        let flight = self.board(tenant.into_owned())?;
        tokio::select! {
            biased;
            () = self.0.stop.cancelled() => Err(ResolveError::Closed),
            outcome = flight => outcome,
        }
    }

    /// Whoever resolves after this call gets what the registry says after this call.
    fn invalidate(&self, tenant: TenantId) {
        let mut state = self.0.state();
        state.cache.invalidate(tenant);
        state.flights.clear();
    }

    fn invalidate_all(&self) {
        let mut state = self.0.state();
        state.cache.invalidate_all();
        state.flights.clear();
    }

    async fn close(&self) {
        let (servers, pools): (Vec<_>, _) = {
            let mut state = self.0.state();
            let servers = self.0.servers();
            self.0.stop.cancel();
            (servers.values().cloned().collect(), state.cache.drain())
        };
        self.0.retire(pools);
        servers.iter().for_each(|server| server.close());
        let all = join_all(servers.iter().map(|server| server.closed()));
        if tokio::time::timeout(self.0.settings.drain_timeout, all).await.is_err() {
            tracing::warn!("connections are still out; each closes when it is returned");
        }
        join_all(servers.iter().map(|server| server.settled())).await;
    }
}

#[async_trait]
impl Renew for Shared {
    async fn renew(self: Arc<Self>, tenant: TenantId) -> Result<TenantPool, ResolveError> {
        PooledResolver(self).resolve(TenantRef::Id(tenant)).await
    }
    fn mark_stale(&self, tenant: TenantId, since: Instant) {
        let mut state = self.state();
        if state.cache.mark_stale(tenant, since, Instant::now()) {
            state.flights.clear();
        }
    }
}

impl std::fmt::Debug for PooledResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PooledResolver").field("pools", &self.0.state().cache.len()).finish_non_exhaustive()
    }
}
