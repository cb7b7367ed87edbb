//! One small lazy pool per tenant, bounded in number. Correct and simple: the budget over all tenants of a server comes
//! in its place.
use super::pool::Renew;
use super::{ConnectionResolver, TenantPool};
use crate::error::ResolveError;
use crate::registry::TenantRegistry;
use crate::tenant::{TenantId, TenantRef};
use crate::vault::CredentialVault;
use async_trait::async_trait;
use cache::{Cache, Limits};
use flight::Flights;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod builder;
mod cache;
mod cold;
mod flight;
pub use builder::PooledResolverBuilder;

/// Resolves through a registry and a vault. A handle: cloning it is one `Arc`.
///
/// Each tenant in use has a small pool that connects when it is used, tests a connection before it hands it out, and
/// closes one that was idle for a minute. A pool is closed, gracefully, when the tenant's entry changes, when the
/// tenant is refused, and when there are too many; a [`TenantPool`] then finds the next one by itself.
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
/// let resolver = PooledResolver::builder(registry, PgVault::new(landlord, keys)).max_connections(60).build();
/// let db = resolver.resolve("acme".into()).await?;
/// let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&db).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PooledResolver(Arc<Shared>);

struct Shared {
    registry: Arc<dyn TenantRegistry>,
    vault: Arc<dyn CredentialVault>,
    settings: builder::Settings,
    state: Mutex<State>,
    /// Pools on their way out.
    tasks: TaskTracker,
    /// Cancelled under the lock of `state`: what is kept after it would never be closed.
    stop: CancellationToken,
    /// Nobody waits any longer for connections that are out.
    give_up: CancellationToken,
}

/// No future and no pool may be dropped under its lock that would take the lock itself: flights are weak here.
struct State {
    cache: Cache,
    flights: Flights,
}

impl PooledResolver {
    /// Over a registry and a vault; `Arc<dyn …>` goes in too.
    pub fn builder(registry: impl TenantRegistry, vault: impl CredentialVault) -> PooledResolverBuilder {
        PooledResolverBuilder::new(Arc::new(registry), Arc::new(vault))
    }
}

impl Shared {
    fn new(PooledResolverBuilder { registry, vault, settings }: PooledResolverBuilder) -> Self {
        let limits = Limits {
            pools: settings.max_pools,
            pools_per_server: settings.pools_per_server(),
            fresh_for: settings.fresh_for,
        };
        let state = Mutex::new(State { cache: Cache::new(limits), flights: Flights::new() });
        let (tasks, stop, give_up) = Default::default();
        Self { registry, vault, settings, state, tasks, stop, give_up }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cached(&self, tenant: &TenantRef<'_>) -> Option<TenantPool> {
        self.state().cache.get(tenant, Instant::now())
    }

    /// Closes pools when what is out has come back; `close()` waits for it.
    fn retire(&self, pools: impl IntoIterator<Item = TenantPool>) {
        for pool in pools {
            let give_up = self.give_up.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = pool.pool().close() => {}
                    () = give_up.cancelled() => {}
                }
            });
        }
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
        let pools = {
            let mut state = self.0.state();
            self.0.stop.cancel();
            state.cache.drain()
        };
        self.0.retire(pools);
        self.0.tasks.close();
        if tokio::time::timeout(self.0.settings.drain_timeout, self.0.tasks.wait()).await.is_err() {
            tracing::warn!("connections are still out; each closes when it is returned");
            self.0.give_up.cancel();
            self.0.tasks.wait().await;
        }
    }
}

#[async_trait]
impl Renew for Shared {
    async fn renew(self: Arc<Self>, tenant: TenantId) -> Result<TenantPool, ResolveError> {
        PooledResolver(self).resolve(TenantRef::Id(tenant)).await
    }
    fn distrust(&self, tenant: TenantId, since: Instant) {
        let mut state = self.state();
        if state.cache.distrust(tenant, since, Instant::now()) {
            state.flights.clear();
        }
    }
}

impl std::fmt::Debug for PooledResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PooledResolver").field("pools", &self.0.state().cache.len()).finish_non_exhaustive()
    }
}
