//! A tenant's connections, as a handle that works wherever sqlx takes `&PgPool`.
//!
//! The resolver creates one [`TenantPool`] per tenant; the application runs its queries on it. A query takes a
//! connection from the tenant's share of the server's budget (`budget`), or from the tenant's replica if the handle
//! came from [`TenantPool::read`].
//!
//! Invariants: a connection serves one tenant for its whole life. A handle outlives evictions, login rotations and
//! server moves, because it resolves its tenant again when its share is retired or its login is refused.
use crate::tenant::Tenant;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPool;
use sqlx::{Postgres, Transaction};
use std::sync::Arc;
use std::{fmt, future::Future};

mod acquire;
mod attempt;
pub(crate) mod budget;
pub(crate) mod clock;
pub(crate) mod connect;
mod error;
mod executor;
mod listener;
#[cfg(feature = "metrics")]
pub mod metrics;
mod query;
mod replica;
mod retry;
pub(crate) use acquire::{Budgeted, Renew, Renewal};
pub use budget::PoolStats;
pub use error::AcquireError;
pub use listener::TenantListener;
pub(crate) use replica::Replica;

/// A handle to a tenant's connections, not a pool of its own. Cloning it clones one `Arc`. It is safe to keep for long:
/// it outlives evictions and login rotations, because it resolves its tenant again when its connections were closed or
/// its login was refused.
///
/// The handle works with everything that takes `impl PgExecutor` or `impl Acquire`: queries, streams, transactions and
/// `Migrator::run`. `COPY` needs a connection from [`acquire`](Self::acquire), and notifications have a
/// [`listener`](Self::listener). Libraries that require a
/// concrete `PgPool` or `PgConnection` (sea-orm, diesel) do not work with the handle. Give them a pool of their own,
/// which the budget does not count, or a connection from [`acquire`](Self::acquire). A pooler in transaction mode
/// between this process and the server breaks sqlx's prepared statements (26000): connect directly, or use session
/// mode.
///
/// # What one caller leaves to the next
///
/// Different tenants share nothing: a connection serves one tenant for its whole life. Between two callers of one
/// tenant, an open transaction is rolled back. A connection that a caller had through [`acquire`](Self::acquire) or
/// [`begin`](Self::begin), or whose query was dropped before its end, also loses its session advisory locks and its
/// `LISTEN`s: one round trip in the background before it serves again. So a `Migrator::run` that failed or was dropped
/// leaves no lock. `SET` and temporary tables stay with the connection, and so does a session advisory lock that a
/// single query took on the handle itself: use `SET LOCAL` and transaction-level locks, or
/// [`discard_on_release`](crate::resolver::PoolSettings::discard_on_release). A dropped query keeps its
/// connection until the server has answered it, at most for
/// [`release_timeout`](crate::resolver::PoolSettings::release_timeout). A protocol error closes the
/// connection. `COPY … FROM STDIN` through the handle itself causes one; use
/// [`copy_in_raw`](sqlx::postgres::PgConnection::copy_in_raw) on an acquired connection.
///
/// # When the tenant's schema changes
///
/// After [`Tenantry::migrate`](crate::Tenantry::migrate) has applied something, every node replaces the connections that
/// it had opened before, as after a rotation: their prepared statements and cached types may no longer match. Until a
/// node knows of it, or after a person has changed the schema, a statement may fail with 0A000 ("cached plan must not
/// change result type"). Its connection is then closed, and the statement is run once more on a new one, if nothing of
/// it was executed: a single prepared query, on the handle itself, before its first row. In a transaction and on an
/// acquired connection the error is the caller's, and the pool does not see it: repeat the whole transaction. A
/// connection is used for half an hour at most
/// ([`max_lifetime`](crate::resolver::PoolSettings::max_lifetime)).
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
    /// Receives notifications of the tenant's database, on a connection that counts against the limits while the
    /// listener lives. Use it instead of `LISTEN` on an acquired connection: sqlx expects no notification there and
    /// reports a protocol error.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    pub async fn listener(&self) -> Result<TenantListener, sqlx::Error> {
        TenantListener::connect(self.clone_with(self.0.tenant.clone(), false)).await
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
}

impl fmt::Debug for TenantPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantPool").field("tenant", &self.0.tenant.id()).finish_non_exhaustive()
    }
}
