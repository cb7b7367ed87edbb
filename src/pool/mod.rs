//! A tenant's connections, as a handle that works wherever sqlx takes `&PgPool`.
//!
//! The resolver creates one [`TenantPool`] per tenant; the application runs its queries on it. A query takes a
//! connection from the tenant's share of the server's budget (`budget`), or from the tenant's replica if the handle
//! came from [`TenantPool::read`].
//!
//! Invariants: a connection serves one tenant for its whole life. A handle outlives evictions, login rotations and
//! server moves, because it resolves its tenant again when its share is retired or its login is refused.
use self::budget::{Checkout, TenantShare};
use crate::error::ResolveError;
use crate::rt;
use crate::sqlstate::{self, INVALID_AUTHORIZATION, INVALID_PASSWORD};
use crate::tenant::{Tenant, TenantId};
use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Postgres, Transaction};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use std::{fmt, future::Future};

pub(crate) mod budget;
pub(crate) mod clock;
pub(crate) mod connect;
mod error;
mod executor;
#[cfg(feature = "metrics")]
pub mod metrics;
mod replica;
pub use budget::PoolStats;
pub use error::AcquireError;
pub(crate) use replica::Replica;
use replica::ReplicaAnswer;

/// A handle to a tenant's connections, not a pool of its own. Cloning it clones one `Arc`. It is safe to keep for long:
/// it outlives evictions and login rotations, because it resolves its tenant again when its connections were closed or
/// its login was refused.
///
/// The handle works with everything that takes `impl PgExecutor` or `impl Acquire`: queries, streams, transactions and
/// `Migrator::run`. `COPY` and `LISTEN` need a connection from [`acquire`](Self::acquire). Libraries that require a
/// concrete `PgPool` or `PgConnection` (sea-orm, diesel) do not work with the handle. Give them a pool of their own,
/// which the budget does not count, or a connection from [`acquire`](Self::acquire). A pooler in transaction mode
/// between this process and the server breaks sqlx's prepared statements (26000): connect directly, or use session
/// mode.
///
/// # What one caller leaves to the next
///
/// Different tenants share nothing: a connection serves one tenant for its whole life. Between two callers of one
/// tenant, an open transaction is rolled back. A connection whose query was dropped before its end, or failed, is
/// pinged before it serves again. `SET`, temporary tables, session advisory locks and `LISTEN` stay with the
/// connection: use `SET LOCAL` and transaction-level locks, or
/// [`discard_on_release`](crate::resolver::PooledResolverBuilder::discard_on_release). A dropped query keeps its
/// connection until the server has answered it, at most for
/// [`release_timeout`](crate::resolver::PooledResolverBuilder::release_timeout). A protocol error closes the
/// connection. `COPY … FROM STDIN` through the handle itself causes one; use
/// [`copy_in_raw`](sqlx::postgres::PgConnection::copy_in_raw) on an acquired connection.
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
    /// Whether queries may run on the tenant's replica.
    reads: bool,
}

/// Where a handle's connections come from.
#[derive(Clone)]
enum Source {
    /// A pool that the application created.
    Own(PgPool),
    /// The server pools of the resolver.
    Budget(Budgeted),
}

/// A tenant's shares of its servers' budgets, and how to get new shares when these are retired.
#[derive(Clone)]
pub(crate) struct Budgeted {
    pub(crate) primary: Arc<TenantShare>,
    pub(crate) replica: Option<Arc<Replica>>,
    pub(crate) renewal: Renewal,
}

/// How a handle gets new shares when its own are retired or its login is refused. The reference is weak because the
/// resolver's cache owns the handle; a strong one would be a cycle.
#[derive(Clone)]
pub(crate) struct Renewal {
    pub(crate) from: Weak<dyn Renew>,
    /// Time limit for one acquire: waiting and opening.
    pub(crate) limit: Duration,
}

/// Implemented by the resolver, for handles that need new shares.
#[async_trait]
pub(crate) trait Renew: Send + Sync {
    /// Resolves the tenant again and returns its present handle.
    async fn renew(self: Arc<Self>, tenant: TenantId) -> Result<TenantPool, ResolveError>;
    /// Reports that the server refused the login that was known at `since`. The next `renew` then reads the registry
    /// again, unless the tenant was read after `since`.
    fn mark_stale(&self, tenant: TenantId, since: Instant);
}

/// Added to the time limit of a whole acquire, so that the inner timeouts fire first and return the more precise error.
const SLACK: Duration = Duration::from_millis(250);

tokio::task_local! { static CURRENT: TenantPool; }

/// Runs `work` with `pool` as its [`TenantPool::current`].
pub(crate) async fn run_with_current<F: Future>(pool: TenantPool, work: F) -> F::Output {
    CURRENT.scope(pool, work).await
}

impl TenantPool {
    /// A handle over a pool that the application created, for unit tests (`#[sqlx::test]`) and custom resolvers. The
    /// crate neither limits nor closes that pool.
    pub fn from_pool(tenant: Tenant, pool: PgPool) -> Self {
        Self(Arc::new(Inner { tenant, source: Source::Own(pool), reads: false }))
    }
    /// A handle over shares of the resolver's server pools.
    pub(crate) fn from_budget(tenant: Tenant, budgeted: Budgeted) -> Self {
        Self(Arc::new(Inner { tenant, source: Source::Budget(budgeted), reads: false }))
    }
    /// The tenant, as the registry had it when this handle was resolved.
    pub fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }
    /// How many connections this process has open for the tenant, and how many of them are in use. Counts connections
    /// to the primary and to the replica together.
    pub fn connections(&self) -> (usize, usize) {
        match &self.0.source {
            Source::Budget(Budgeted { primary, replica, .. }) => {
                let (open, busy) = primary.usage();
                let (replica_open, replica_busy) = replica.as_ref().map_or((0, 0), |replica| replica.usage());
                (open + replica_open, busy + replica_busy)
            }
            Source::Own(pool) => (pool.size() as usize, (pool.size() as usize).saturating_sub(pool.num_idle())),
        }
    }
    /// A handle for reads that may be stale. It uses the tenant's replica if there is one (a physical standby, see
    /// [`TenantDatabase::replica_of`](crate::directory::TenantDatabase::replica_of)), else the primary.
    ///
    /// The choice is made for each connection. If the replica fails, opens no connection within half a second, is full,
    /// or does not know a new login yet, the connection comes from the primary. After a failure or a refused login,
    /// reads go to the primary for a second without trying the replica, except for those that find an idle connection.
    /// A transaction or an acquired connection stays on the server where it began.
    ///
    /// A read may miss what the same caller has just written, because a standby replays commits of the primary with a
    /// delay. A write fails with 25006 on the replica but succeeds on the primary, so this handle does not prevent
    /// writes. A query that conflicts with the replay for longer than the standby allows
    /// (`max_standby_streaming_delay`) fails with 40001 and may be repeated. A query that is running when the standby
    /// stops fails, as on any server.
    ///
    /// ```no_run
    /// # async fn example(db: tenantry::TenantPool) -> sqlx::Result<()> {
    /// let notes: i64 = sqlx::query_scalar("SELECT count(*) FROM notes").fetch_one(&db.read()).await?;
    /// # Ok(()) }
    /// ```
    pub fn read(&self) -> TenantPool {
        match &self.0.source {
            Source::Budget(_) if !self.0.reads => self.clone_with(self.0.tenant.clone(), true),
            _ => self.clone(),
        }
    }
    /// Takes one connection. It is returned when it is dropped.
    ///
    /// # Errors
    /// [`AcquireError`] inside `sqlx::Error::Io` if there was no connection within the time limit, the tenant no longer
    /// resolves, or the resolver is closed; [`AcquireError::find`] extracts it. Any other error is the server's own.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the queue; a connection that was already granted goes to the next caller.
    pub async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        self.checkout().await?.into_pool_connection()
    }
    /// Begins a transaction on a connection of its own. A transaction that is dropped without a commit is rolled back.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    pub async fn begin(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        Transaction::begin(self.checkout().await?.into_pool_connection()?, None).await
    }
    /// The handle of the job that is running ([`Tenantry::with_tenant`](crate::Tenantry::with_tenant) or
    /// `TenantLayer`). `None` outside a job, and in a task that the job spawned.
    pub fn current() -> Option<TenantPool> {
        CURRENT.try_with(Clone::clone).ok()
    }
    #[cfg(test)]
    pub(crate) fn own_pool(&self) -> &PgPool {
        match &self.0.source {
            Source::Own(pool) => pool,
            Source::Budget(_) => panic!("the handle uses the resolver's server pools and has no pool of its own"),
        }
    }
    /// Retires the shares: idle connections are closed now, connections in use when they are returned. Callers of this
    /// handle resolve the tenant again. Does nothing to a pool that the application created.
    pub(crate) fn retire(&self) {
        if let Source::Budget(Budgeted { primary, replica, .. }) = &self.0.source {
            primary.retire();
            replica.iter().for_each(|replica| replica.retire());
        }
    }
    /// A handle to the same connections that shows a newer record of the tenant.
    pub(crate) fn for_tenant(&self, tenant: &Tenant) -> TenantPool {
        if self.0.tenant == *tenant { self.clone() } else { self.clone_with(tenant.clone(), self.0.reads) }
    }
    fn clone_with(&self, tenant: Tenant, reads: bool) -> TenantPool {
        Self(Arc::new(Inner { tenant, source: self.0.source.clone(), reads }))
    }

    /// Takes a connection for one call. Without a wait if an idle one needs no ping.
    async fn checkout(&self) -> Result<BorrowedConnection<'_>, sqlx::Error> {
        rt::yield_after_many_calls().await;
        let budgeted = match &self.0.source {
            Source::Budget(budgeted) => budgeted,
            Source::Own(pool) => {
                let started = Instant::now();
                let acquired = pool.acquire().await.map(BorrowedConnection::Own);
                return acquired.map_err(|error| to_acquire_error(error, started.elapsed()));
            }
        };
        let replica = budgeted.replica.as_ref().filter(|_| self.0.reads);
        let idle = replica.map_or_else(|| budgeted.primary.checkout(), |replica| replica.checkout());
        if let Some(checkout) = idle {
            return Ok(BorrowedConnection::Budget(checkout));
        }
        let started = Instant::now();
        // The waits inside have limits of their own and report why they failed. This outer limit only bounds a series
        // of renewals, so it is a little longer.
        let for_replica = if self.0.reads { 2 * replica::CONNECT_LIMIT } else { Duration::ZERO };
        let limit = budgeted.renewal.limit + SLACK + for_replica;
        let acquired = tokio::time::timeout(limit, self.acquire_with_renewal(budgeted.clone())).await;
        acquired.unwrap_or_else(|_| Err(AcquireError::ConnectTimeout { waited: started.elapsed() }.into()))
    }

    /// Acquires a connection and resolves the tenant again where that can help.
    ///
    /// A retired share means that the tenant was evicted from the cache or its entry has changed; the loop continues
    /// with the new shares, however often that happens within the time limit. If the server refuses a login, the tenant
    /// is resolved again once for that login. If the replica refuses it once more, the primary is used: it knows new
    /// logins first.
    async fn acquire_with_renewal(&self, mut shares: Budgeted) -> Result<BorrowedConnection<'static>, sqlx::Error> {
        let (mut reads, mut looked_up) = (self.0.reads, false);
        loop {
            let since = Instant::now();
            let replica = shares.replica.clone().filter(|_| reads);
            let found = match &replica {
                Some(replica) => match replica.acquire(shares.renewal.limit).await {
                    ReplicaAnswer::Acquired(checkout) => Ok(checkout),
                    ReplicaAnswer::LoginRefused(error) if !looked_up => Err(error),
                    ReplicaAnswer::LoginRefused(_) | ReplicaAnswer::UsePrimary => {
                        (reads, looked_up) = (false, false);
                        continue;
                    }
                },
                None => shares.primary.acquire().await,
            };
            match found {
                Ok(Some(checkout)) => return Ok(BorrowedConnection::Budget(checkout)),
                Ok(None) => {}
                Err(error) if is_refused(&error) && !looked_up => {
                    looked_up = true;
                    shares.renewal.mark_stale(self.0.tenant.id(), since);
                }
                Err(error) => return Err(error),
            }
            // If nothing above returned `Pending`, this loop would never let the outer timeout fire.
            tokio::task::yield_now().await;
            match shares.renewal.renew(self.0.tenant.id()).await {
                Ok(newer) => match &newer.0.source {
                    Source::Budget(newer) => {
                        // New shares mean a new login or placement, which may be refused and looked up once more.
                        looked_up &= Arc::ptr_eq(&newer.primary, &shares.primary);
                        shares = newer.clone();
                    }
                    Source::Own(pool) => return pool.acquire().await.map(BorrowedConnection::Own),
                },
                // A read on the replica must not fail because the tenant cannot be resolved now: the primary share that
                // this handle already has may still work.
                Err(_) if replica.is_some() => (reads, looked_up) = (false, false),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A connection for one call. Unless the call ends with [`release_clean`](Self::release_clean), the connection is
/// rolled back and pinged before it serves again.
enum BorrowedConnection<'a> {
    Own(PoolConnection<Postgres>),
    Budget(Checkout<'a>),
}

impl BorrowedConnection<'_> {
    fn session(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        match self {
            Self::Own(connection) => Ok(connection),
            Self::Budget(checkout) => checkout.session(),
        }
    }
    fn into_pool_connection(self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        match self {
            Self::Own(connection) => Ok(connection),
            Self::Budget(checkout) => checkout.into_pool_connection().ok_or(sqlx::Error::WorkerCrashed),
        }
    }
    /// Returns a connection whose answers were read in full.
    fn release_clean(self) {
        if let Self::Budget(checkout) = self {
            checkout.release_clean();
        }
    }
    /// Returns a connection after a failed statement.
    fn release_failed(self, error: &sqlx::Error) {
        if let Self::Budget(checkout) = self {
            checkout.release_failed(error);
        }
    }
}

impl Renewal {
    async fn renew(&self, tenant: TenantId) -> Result<TenantPool, AcquireError> {
        let from = self.from.upgrade().ok_or(AcquireError::Closed)?;
        Ok(from.renew(tenant).await?)
    }
    fn mark_stale(&self, tenant: TenantId, since: Instant) {
        if let Some(from) = self.from.upgrade() {
            from.mark_stale(tenant, since);
        }
    }
}

/// Whether the server refused the login (28000) or its password (28P01): the tenant was suspended, or another node has
/// rotated the login.
fn is_refused(error: &sqlx::Error) -> bool {
    sqlstate::code(error).is_some_and(|c| matches!(&*c, INVALID_AUTHORIZATION | INVALID_PASSWORD))
}

/// Replaces sqlx's pool errors, which carry no details, by an [`AcquireError`].
fn to_acquire_error(error: sqlx::Error, waited: Duration) -> sqlx::Error {
    match error {
        sqlx::Error::PoolTimedOut => AcquireError::ConnectTimeout { waited }.into(),
        sqlx::Error::PoolClosed => AcquireError::Closed.into(),
        error => error,
    }
}

impl fmt::Debug for TenantPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantPool").field("tenant", &self.0.tenant.id()).finish_non_exhaustive()
    }
}
