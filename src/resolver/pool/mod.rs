//! `&TenantPool` goes where `&PgPool` goes.
use crate::error::ResolveError;
use crate::sqlstate::{self, INVALID_AUTHORIZATION, INVALID_PASSWORD};
use crate::tenant::{Tenant, TenantId};
use async_trait::async_trait;
use futures_core::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPool;
use sqlx::{Postgres, Transaction};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use std::{fmt, future::Future};

mod error;
mod executor;
pub use error::AcquireError;

/// A tenant's connections: a handle, not a pool. Clone it freely (one `Arc`) and keep it: it outlives evictions and
/// changes of the login, because it resolves its tenant again when its connections were closed or refused.
///
/// What goes through it: everything that takes `impl PgExecutor` or `impl Acquire`, `Migrator::run`, transactions,
/// streams; `COPY` and `LISTEN` after [`acquire`](Self::acquire). What does not: libraries that want a concrete
/// `PgPool`.
///
/// ```no_run
/// # async fn example(db: tenantry::TenantPool) -> sqlx::Result<()> {
/// use sqlx::PgExecutor;
///
/// async fn add(db: impl PgExecutor<'_>, text: &str) -> sqlx::Result<()> {
///     sqlx::query("INSERT INTO notes (text) VALUES ($1)").bind(text).execute(db).await.map(drop)
/// }
/// add(&db, "on any connection").await?;
/// let mut tx = db.begin().await?;
/// add(&mut *tx, "in a transaction").await?;
/// tx.commit().await
/// # }
/// ```
#[derive(Clone)]
pub struct TenantPool(Arc<Inner>);

struct Inner {
    tenant: Tenant,
    pool: PgPool,
    renewal: Option<Renewal>,
}

/// Where a handle's connections come from when those it had are closed or refused. Weak: the handle is kept by what it
/// would keep.
#[derive(Clone)]
pub(super) struct Renewal {
    pub(super) from: Weak<dyn Renew>,
    /// For one acquire, with everything that it takes.
    pub(super) limit: Duration,
}

#[async_trait]
pub(super) trait Renew: Send + Sync {
    /// The tenant's handle as it is now.
    async fn renew(self: Arc<Self>, tenant: TenantId) -> Result<TenantPool, ResolveError>;
    /// What was known of the tenant at that time is out of date.
    fn distrust(&self, tenant: TenantId, since: Instant);
}

/// What is done with a pool, in a form that can be done again with another one.
type Attempt<T> = fn(PgPool) -> BoxFuture<'static, Result<T, sqlx::Error>>;

tokio::task_local! { static CURRENT: TenantPool; }

/// Runs `work` with `pool` as [`TenantPool::current`].
pub(crate) async fn scope<F: Future>(pool: TenantPool, work: F) -> F::Output {
    CURRENT.scope(pool, work).await
}

impl TenantPool {
    /// A tenant's handle over a pool of the host's own: for unit tests (`#[sqlx::test]`) and own resolvers. No budget.
    pub fn from_pool(tenant: Tenant, pool: PgPool) -> Self {
        Self(Arc::new(Inner { tenant, pool, renewal: None }))
    }
    pub(super) fn renewable(tenant: Tenant, pool: PgPool, renewal: Renewal) -> Self {
        Self(Arc::new(Inner { tenant, pool, renewal: Some(renewal) }))
    }
    /// Whose it is, as of the resolve that gave this handle.
    pub fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }
    /// For reads that may lag: the same connections, until replicas are built.
    pub fn read(&self) -> TenantPool {
        self.clone()
    }
    /// One connection. It returns when it is dropped.
    ///
    /// # Errors
    /// [`AcquireError`] inside `sqlx::Error::Io` when none came; [`AcquireError::find`] gets it out. What the server
    /// itself said otherwise.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue.
    pub async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        self.attempt(|pool| Box::pin(async move { pool.acquire().await })).await
    }
    /// A transaction. Dropped without a commit it is rolled back.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    pub async fn begin(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        self.attempt(|pool| Box::pin(async move { pool.begin().await })).await
    }
    /// The tenant of the running job (`with_tenant`). Never a default; not inherited by `tokio::spawn`.
    pub fn current() -> Option<TenantPool> {
        CURRENT.try_with(Clone::clone).ok()
    }
    pub(super) fn pool(&self) -> &PgPool {
        &self.0.pool
    }
    /// The same connections for the tenant as it is now.
    pub(super) fn of(&self, tenant: &Tenant) -> TenantPool {
        if self.0.tenant == *tenant {
            return self.clone();
        }
        let (tenant, pool, renewal) = (tenant.clone(), self.0.pool.clone(), self.0.renewal.clone());
        Self(Arc::new(Inner { tenant, pool, renewal }))
    }

    async fn attempt<T>(&self, with: Attempt<T>) -> Result<T, sqlx::Error> {
        let asked = Instant::now();
        let done = match &self.0.renewal {
            None => with(self.0.pool.clone()).await,
            Some(renewal) => match tokio::time::timeout(renewal.limit, self.renewing(renewal, with)).await {
                Ok(done) => done,
                Err(_) => Err(sqlx::Error::PoolTimedOut),
            },
        };
        done.map_err(|error| phased(error, asked.elapsed()))
    }

    /// A closed pool was evicted or its login replaced: there is another one, as often as that happens within the limit.
    /// A refused login is looked up again once.
    async fn renewing<T>(&self, renewal: &Renewal, with: Attempt<T>) -> Result<T, sqlx::Error> {
        let (mut pool, mut looked_up) = (self.0.pool.clone(), false);
        loop {
            let since = Instant::now();
            match with(pool).await {
                Err(sqlx::Error::PoolClosed) => {}
                Err(error) if is_refused(&error) && !looked_up => {
                    looked_up = true;
                    renewal.distrust(self.0.tenant.id(), since);
                }
                done => return done,
            }
            // Nothing above must wait, and the limit is only seen where something does.
            tokio::task::yield_now().await;
            pool = renewal.renew(self.0.tenant.id()).await?.0.pool.clone();
        }
    }
}

impl Renewal {
    async fn renew(&self, tenant: TenantId) -> Result<TenantPool, AcquireError> {
        let from = self.from.upgrade().ok_or(AcquireError::Closed)?;
        Ok(from.renew(tenant).await?)
    }
    fn distrust(&self, tenant: TenantId, since: Instant) {
        if let Some(from) = self.from.upgrade() {
            from.distrust(tenant, since);
        }
    }
}

/// The login may not log in, or its password is another one: suspended, or rotated by another node.
fn is_refused(error: &sqlx::Error) -> bool {
    sqlstate::code(error).is_some_and(|c| matches!(&*c, INVALID_AUTHORIZATION | INVALID_PASSWORD))
}

/// sqlx's own words for these can carry nothing; ours say what was waited for.
fn phased(error: sqlx::Error, waited: Duration) -> sqlx::Error {
    match error {
        sqlx::Error::PoolTimedOut => AcquireError::Server { waited }.into(),
        sqlx::Error::PoolClosed => AcquireError::Closed.into(),
        error => error,
    }
}

impl fmt::Debug for TenantPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantPool").field("tenant", &self.0.tenant.id()).finish_non_exhaustive()
    }
}
