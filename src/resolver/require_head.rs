//! [`RequireHead`]: resolves only tenants that have run every migration of this program.
//!
//! The facade puts it around its own resolver if the builder's `require_head` is on. It is the one resolver that opens
//! a connection: it reads the tenant's table of applied migrations, over one of the tenant's own connections.
//!
//! Invariants: a tenant that has passed is read again after [`PASS_LIFETIME`] and after each invalidation, because its
//! database can be replaced by an older one. At most one such read per tenant runs at a time. A tenant whose table
//! cannot be read counts as behind, unless it has passed before and was not invalidated: then its database has a
//! problem that the application's own statements report.
use super::ConnectionResolver;
use crate::cluster::{LedgerObstacle, find_obstacle, read_ledger};
use crate::error::ResolveError;
use crate::pool::TenantPool;
use crate::tenant::{TenantId, TenantRef};
use async_trait::async_trait;
use sqlx::migrate::Migrator;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Maximum tenants that are remembered. Beyond it all are forgotten, and each is read once more.
const MAX_REMEMBERED: usize = 100_000;
/// How long a tenant that has passed is not read again. A minute, as long as the resolver uses a name without reading
/// the registry again: the read costs one round trip per tenant and minute.
const PASS_LIFETIME: Duration = Duration::from_secs(60);

/// A resolver around `inner` that refuses tenants which have not run all of these migrations. A tenant with newer
/// migrations passes.
pub(crate) struct RequireHead<R> {
    inner: R,
    migrations: &'static Migrator,
    lifetime: Duration,
    checks: Mutex<HashMap<TenantId, Arc<Check>>>,
}

/// The check of one tenant.
#[derive(Default)]
struct Check {
    /// When the tenant passed; empty until then.
    passed_at: OnceCell<Instant>,
    /// Whether the tenant has passed an earlier check, which is too old now. Unset when a read shows otherwise.
    has_passed_before: AtomicBool,
}

impl<R: ConnectionResolver> RequireHead<R> {
    pub(crate) fn new(inner: R, migrations: &'static Migrator) -> Self {
        Self { inner, migrations, lifetime: PASS_LIFETIME, checks: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Check>>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tenant's check: one that is open or has passed recently, or else a new one.
    fn check(&self, tenant: TenantId) -> Arc<Check> {
        let mut checks = self.lock();
        if checks.len() >= MAX_REMEMBERED && !checks.contains_key(&tenant) {
            checks.clear();
        }
        let check = checks.entry(tenant).or_default();
        if check.passed_at.get().is_some_and(|at| at.elapsed() >= self.lifetime) {
            *check = Arc::new(Check { has_passed_before: true.into(), ..Check::default() });
        }
        check.clone()
    }

    /// Fails unless the tenant has run every migration of this program. Returns when the read began.
    async fn verify(&self, handle: &TenantPool, check: &Check) -> Result<Instant, ResolveError> {
        let begun = Instant::now();
        if self.migrations.iter().next().is_none() {
            return Ok(begun);
        }
        let tenant = handle.tenant().clone();
        let ledger = async {
            let mut session = handle.acquire().await?;
            read_ledger(self.migrations, &mut session).await
        };
        let obstacle = match ledger.await {
            Ok(ledger) => find_obstacle(self.migrations, &ledger),
            Err(error) => {
                tracing::debug!(tenant = %tenant.id(), %error, "could not read a tenant's table of applied migrations");
                (!check.has_passed_before.load(Relaxed)).then_some(LedgerObstacle::Missing)
            }
        };
        check.has_passed_before.fetch_and(obstacle.is_none(), Relaxed);
        match obstacle {
            None => Ok(begun),
            Some(LedgerObstacle::Missing) => Err(ResolveError::Behind(tenant)),
            Some(LedgerObstacle::Unusable(version)) => Err(ResolveError::UnusableMigration { tenant, version }),
        }
    }
}

#[async_trait]
impl<R: ConnectionResolver> ConnectionResolver for RequireHead<R> {
    fn cached(&self, tenant: &TenantRef<'_>) -> Option<TenantPool> {
        let handle = self.inner.cached(tenant)?;
        self.check(handle.tenant().id()).passed_at.initialized().then_some(handle)
    }
    async fn resolve(&self, tenant: TenantRef<'_>) -> Result<TenantPool, ResolveError> {
        let handle = self.inner.resolve(tenant).await?;
        let check = self.check(handle.tenant().id());
        check.passed_at.get_or_try_init(|| self.verify(&handle, &check)).await?;
        Ok(handle)
    }
    fn invalidate(&self, tenant: TenantId) {
        self.inner.invalidate(tenant);
        self.lock().remove(&tenant);
    }
    fn invalidate_all(&self) {
        self.inner.invalidate_all();
        self.lock().clear();
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}

#[cfg(test)]
#[cfg(all(unix, feature = "testing"))]
mod tests {
    use super::*;
    use crate::testing::{FixedResolver, TestServer};
    use sqlx::Executor;
    use sqlx::postgres::PgPoolOptions;

    static MIGRATIONS: Migrator = sqlx::migrate!("examples/tenant_migrations");

    #[tokio::test]
    async fn tenant_that_has_passed_is_read_again_after_the_lifetime() {
        let database = TestServer::shared().await.unwrap().create_database("head").await.unwrap();
        let pool = PgPoolOptions::new().connect_with(database.options()).await.unwrap();
        MIGRATIONS.run(&pool).await.unwrap();
        let inner = FixedResolver::default().tenant("acme", pool.clone());
        let resolver = RequireHead { lifetime: Duration::ZERO, ..RequireHead::new(inner, &MIGRATIONS) };
        let resolve = || resolver.resolve("acme".into());
        resolve().await.unwrap();

        const HIDE: &str = "ALTER TABLE _sqlx_migrations RENAME COLUMN success TO hidden";
        const SHOW: &str = "ALTER TABLE _sqlx_migrations RENAME COLUMN hidden TO success";
        pool.execute(HIDE).await.unwrap();
        resolve().await.expect("a tenant that has passed resolves while its ledger cannot be read");
        pool.execute(SHOW).await.unwrap();
        pool.execute("DELETE FROM _sqlx_migrations").await.unwrap();
        assert!(matches!(resolve().await, Err(ResolveError::Behind(_))), "the older verdict is used");
        pool.execute(HIDE).await.unwrap();
        assert!(matches!(resolve().await, Err(ResolveError::Behind(_))), "the verdict before the last one is used");
    }
}
