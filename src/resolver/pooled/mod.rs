//! The default resolver: a cache of tenants by name, and one connection budget per server.
//!
//! A lookup reads `lookup_cache` without a lock. A name that is not cached is loaded (`load`) in a single flight per
//! name (`flight`) and stored in `cache`. [`Tenantry`](crate::Tenantry) calls the crate-private methods when it
//! receives a notification of a change.
//!
//! Invariants: after `invalidate` returns, no caller gets an answer that was read before it. After `close` has begun,
//! nothing is added to the cache or to the server pools.
use super::ConnectionResolver;
use crate::error::ResolveError;
use crate::pool::budget::PgServer;
use crate::pool::{Renew, TenantPool};
use crate::store::registry::{ServerRegistry, TenantRegistry};
use crate::store::vault::CredentialVault;
use crate::tenant::{TenantId, TenantRef};
use async_trait::async_trait;
use cache::{Cache, CacheLimits};
use flight::Flights;
use futures_util::future::join_all;
use limits::{Address, ConnectionLimits};
use lookup_cache::LookupCache;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

mod builder;
mod cache;
mod flight;
mod limits;
mod load;
mod lookup_cache;
mod server_pools;
mod servers;
mod unknown_names;
pub use builder::{PoolSettings, PooledResolverBuilder};

/// Minimum lifetime of an answer while notifications of changes arrive. Bounded, because the triggers that send them
/// can be disabled.
const NOTIFIED_LIFETIME: Duration = Duration::from_secs(60);

/// Resolves tenants through a registry and a vault. Cloning it clones one `Arc`.
///
/// All tenants of a server share one connection budget for it. A tenant without traffic needs no connection and no
/// task. When the budget is used up, an idle connection of the least frequently used tenant is closed for the next
/// caller; if there is no idle one, the caller waits. A tenant's connections are closed when its directory entry
/// changes, when its status no longer allows it to resolve, and when the cache evicts it. A [`TenantPool`] then
/// resolves its tenant again at its next use.
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
    /// The registry of the servers that directory entries name.
    server_registry: Option<Arc<dyn ServerRegistry>>,
    settings: PoolSettings,
    state: Mutex<State>,
    /// The names of `state.cache`, for lookups without its lock.
    names: Arc<LookupCache>,
    connection_limits: ConnectionLimits,
    /// Server pools by host and port. Lock order: `state` before `servers`.
    servers: Mutex<HashMap<Address, Arc<PgServer>>>,
    /// Cancelled by `close`, under both locks. Each insertion checks it under its lock, since a handle or pool that is
    /// stored after the cancellation would never be closed.
    stop: CancellationToken,
}

/// A future or handle whose drop takes this lock must not be dropped while the lock is held; that would be a deadlock.
/// So the flights are weak references.
struct State {
    cache: Cache,
    flights: Flights,
}

impl PooledResolver {
    /// Sets whether this resolver is notified of changes that other nodes make. While it is, answers live for at least
    /// [`NOTIFIED_LIFETIME`].
    pub(crate) fn set_notified(&self, notified: bool) {
        let fresh_for = self.0.settings.fresh_for;
        self.0.names.set_lifetime(if notified { fresh_for.max(NOTIFIED_LIFETIME) } else { fresh_for });
    }
    /// Resolves a cached tenant again after a change, so that connections with an old login or placement are closed now
    /// and not at the tenant's next use. Does nothing for other tenants.
    pub(crate) async fn refresh_if_cached(&self, tenant: TenantId) {
        if self.has_cached(tenant)
            && let Err(error) = self.resolve(TenantRef::Id(tenant)).await
        {
            tracing::debug!(%tenant, %error, "could not resolve a tenant that has changed");
        }
    }
    /// Whether the cache contains the tenant. Only a cached tenant has connections.
    pub(crate) fn has_cached(&self, tenant: TenantId) -> bool {
        self.0.lock_state().cache.has_tenant(tenant)
    }
    /// A builder over a registry and a vault; an `Arc<dyn …>` of either works too. Tenants on registered servers also
    /// need [`servers`](PooledResolverBuilder::servers).
    pub fn builder(registry: impl TenantRegistry, vault: impl CredentialVault) -> PooledResolverBuilder {
        PooledResolverBuilder::new(Arc::new(registry), Arc::new(vault))
    }
}

impl Shared {
    fn new(PooledResolverBuilder { registry, vault, server_registry, settings }: PooledResolverBuilder) -> Self {
        let limits = CacheLimits { tenants: settings.max_cached, fresh_for: settings.fresh_for };
        let cache = Cache::new(limits, Instant::now());
        let names = cache.names();
        let state = Mutex::new(State { cache, flights: Flights::new() });
        let (servers, stop) = Default::default();
        Self {
            registry,
            vault,
            server_registry,
            connection_limits: ConnectionLimits::new(settings.max_connections),
            settings,
            state,
            names,
            servers,
            stop,
        }
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock is safe to use: no code panics between two related changes under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cached(&self, tenant: &TenantRef<'_>) -> Option<TenantPool> {
        self.names.lookup(tenant)
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
        if self.0.lock_state().cache.is_unknown(&tenant, Instant::now()) {
            return Err(ResolveError::Unknown);
        }
        let flight = self.join_flight(tenant.into_owned())?;
        tokio::select! {
            biased;
            () = self.0.stop.cancelled() => Err(ResolveError::Closed),
            outcome = flight => outcome,
        }
    }

    fn invalidate(&self, tenant: TenantId) {
        let mut state = self.0.lock_state();
        state.cache.invalidate(tenant);
        // A running flight may have read the registry before this call. Callers that come later must start a new one.
        state.flights.clear();
    }

    fn invalidate_all(&self) {
        let mut state = self.0.lock_state();
        state.cache.invalidate_all();
        state.flights.clear();
    }

    async fn close(&self) {
        let (servers, pools): (Vec<_>, _) = {
            let mut state = self.0.lock_state();
            let servers = self.0.lock_servers();
            self.0.stop.cancel();
            (servers.values().cloned().collect(), state.cache.drain())
        };
        self.0.retire(pools);
        servers.iter().for_each(|server| server.close());
        let all = join_all(servers.iter().map(|server| server.wait_until_closed()));
        if tokio::time::timeout(self.0.settings.drain_timeout, all).await.is_err() {
            tracing::warn!("connections are still in use after the drain timeout; each closes when it is returned");
        }
        join_all(servers.iter().map(|server| server.wait_for_tasks())).await;
    }
}

#[async_trait]
impl Renew for Shared {
    async fn renew(self: Arc<Self>, tenant: TenantId) -> Result<TenantPool, ResolveError> {
        PooledResolver(self).resolve(TenantRef::Id(tenant)).await
    }
    fn mark_stale(&self, tenant: TenantId, since: Instant) {
        let mut state = self.lock_state();
        if state.cache.mark_stale(tenant, since, Instant::now()) {
            state.flights.clear();
        }
    }
}

impl std::fmt::Debug for PooledResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PooledResolver").field("pools", &self.0.lock_state().cache.len()).finish_non_exhaustive()
    }
}
