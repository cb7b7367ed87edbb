//! `&TenantPool` goes where `&PgPool` goes.
use super::budget::{Checkout, Member};
use crate::error::ResolveError;
use crate::sqlstate::{self, INVALID_AUTHORIZATION, INVALID_PASSWORD};
use crate::tenant::{Tenant, TenantId};
use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};
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
/// `PgPool` or `PgConnection` (sea-orm, diesel): give them a pool of their own, outside the budget, or a connection from
/// [`acquire`](Self::acquire). A pooler in transaction mode between this and the server breaks sqlx's prepared statements
/// (26000): connect directly, or in session mode.
///
/// # What one user of a tenant leaves to the next
///
/// Between tenants nothing: a connection has one tenant for its whole life. Between two users of one tenant an open
/// transaction is rolled back, and a connection whose query was dropped half-way or broke is asked whether it lives before
/// it serves again. `SET`, temp tables, session advisory locks and `LISTEN` stay with the connection: use `SET LOCAL` and
/// transaction locks, or
/// [`discard_on_release`](super::PooledResolverBuilder::discard_on_release). A query that is dropped keeps its connection
/// until the server has answered it.
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
    source: Source,
}

/// Where its connections come from.
#[derive(Clone)]
enum Source {
    /// A pool of the host's.
    Own(PgPool),
    /// The budget of its server; and what to do when that gives it nothing any more.
    Budget(Arc<Member>, Renewal),
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

const SLACK: Duration = Duration::from_millis(250);

tokio::task_local! { static CURRENT: TenantPool; }

/// Runs `work` with `pool` as [`TenantPool::current`].
pub(crate) async fn scope<F: Future>(pool: TenantPool, work: F) -> F::Output {
    CURRENT.scope(pool, work).await
}

impl TenantPool {
    /// A tenant's handle over a pool of the host's own: for unit tests (`#[sqlx::test]`) and own resolvers. No budget.
    pub fn from_pool(tenant: Tenant, pool: PgPool) -> Self {
        Self(Arc::new(Inner { tenant, source: Source::Own(pool) }))
    }
    pub(super) fn budgeted(tenant: Tenant, member: Arc<Member>, renewal: Renewal) -> Self {
        Self(Arc::new(Inner { tenant, source: Source::Budget(member, renewal) }))
    }
    /// Whose it is, as of the resolve that gave this handle.
    pub fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }
    /// Connections that this process has open for the tenant at this moment, and how many of them are in use.
    pub fn connections(&self) -> (usize, usize) {
        match &self.0.source {
            Source::Budget(member, _) => member.usage(),
            Source::Own(pool) => (pool.size() as usize, (pool.size() as usize).saturating_sub(pool.num_idle())),
        }
    }
    /// For reads that may lag. Today the same connections: replicas are not built yet.
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
        self.checkout().await?.into_real()
    }
    /// A transaction. Dropped without a commit it is rolled back.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    pub async fn begin(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        Transaction::begin(self.checkout().await?.into_real()?, None).await
    }
    /// The tenant of the running job (`with_tenant`). Never a default; not inherited by `tokio::spawn`.
    pub fn current() -> Option<TenantPool> {
        CURRENT.try_with(Clone::clone).ok()
    }
    #[cfg(test)]
    pub(super) fn own(&self) -> &PgPool {
        match &self.0.source {
            Source::Own(pool) => pool,
            Source::Budget(..) => panic!("it has no pool"),
        }
    }
    /// Gets nothing more from its budget: what is idle is closed, what is out when it comes back.
    pub(super) fn retire(&self) {
        if let Source::Budget(member, _) = &self.0.source {
            member.retire();
        }
    }
    /// The same connections for the tenant as it is now.
    pub(super) fn of(&self, tenant: &Tenant) -> TenantPool {
        if self.0.tenant == *tenant {
            return self.clone();
        }
        Self(Arc::new(Inner { tenant: tenant.clone(), source: self.0.source.clone() }))
    }

    /// A connection for as long as it is held.
    async fn checkout(&self) -> Result<Checked, sqlx::Error> {
        let (member, renewal) = match &self.0.source {
            Source::Budget(member, renewal) => (member, renewal),
            Source::Own(pool) => {
                let asked = Instant::now();
                return pool.acquire().await.map(Checked::Own).map_err(|error| phased(error, asked.elapsed()));
            }
        };
        if let Some(at_once) = member.checkout() {
            return Ok(Checked::Budget(at_once));
        }
        let asked = Instant::now();
        // Whoever waits inside knows better for what: the outer limit is for many renewals, one after the other.
        let waited = tokio::time::timeout(renewal.limit + SLACK, self.renewing(member, renewal)).await;
        waited.unwrap_or_else(|_| Err(AcquireError::Server { waited: asked.elapsed() }.into()))
    }

    /// A retired member was evicted or its login replaced: there is another one, as often as that happens within the
    /// limit. A refused login is looked up again once.
    async fn renewing(&self, member: &Arc<Member>, renewal: &Renewal) -> Result<Checked, sqlx::Error> {
        let (mut member, mut looked_up) = (member.clone(), false);
        loop {
            let since = Instant::now();
            match member.acquire().await {
                Ok(Some(checkout)) => return Ok(Checked::Budget(checkout)),
                Ok(None) => {}
                Err(error) if is_refused(&error) && !looked_up => {
                    looked_up = true;
                    renewal.distrust(self.0.tenant.id(), since);
                }
                Err(error) => return Err(error),
            }
            // Nothing above must wait, and the limit is only seen where something does.
            tokio::task::yield_now().await;
            match &renewal.renew(self.0.tenant.id()).await?.0.source {
                Source::Budget(newer, _) => member = newer.clone(),
                Source::Own(pool) => return pool.acquire().await.map(Checked::Own),
            }
        }
    }
}

/// A connection on loan. Unless it is said to be [`clean`](Self::clean), it is not trusted when it comes back.
enum Checked {
    Own(PoolConnection<Postgres>),
    Budget(Checkout),
}

impl Checked {
    fn session(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        match self {
            Self::Own(connection) => Ok(connection),
            Self::Budget(checkout) => checkout.session(),
        }
    }
    fn into_real(self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        match self {
            Self::Own(connection) => Ok(connection),
            Self::Budget(checkout) => checkout.into_real().ok_or(sqlx::Error::WorkerCrashed),
        }
    }
    /// What was asked is answered in full.
    fn clean(self) {
        if let Self::Budget(checkout) = self {
            checkout.clean();
        }
    }
    fn failed(self, error: &sqlx::Error) {
        if let Self::Budget(checkout) = self {
            checkout.failed(error);
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
