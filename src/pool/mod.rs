//! `&TenantPool` goes where `&PgPool` goes.
use self::budget::{Checkout, TenantShare};
use crate::error::ResolveError;
use crate::sqlstate::{self, INVALID_AUTHORIZATION, INVALID_PASSWORD};
use crate::tenant::{Tenant, TenantId};
use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Postgres, Transaction};
use std::cell::Cell;
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
/// until the server has answered it, or until
/// [`release_timeout`](super::PooledResolverBuilder::release_timeout) is over. An error of the protocol closes the
/// connection: `COPY … FROM STDIN` through the handle itself is one; use
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
    /// Whether a replica will do.
    reads: bool,
}

/// Where its connections come from.
#[derive(Clone)]
enum Source {
    /// A pool of the host's.
    Own(PgPool),
    /// The budgets of its servers.
    Budget(Budgeted),
}

/// A tenant's part of the budgets of its servers; and what to do when they give it nothing any more.
#[derive(Clone)]
pub(crate) struct Budgeted {
    pub(crate) primary: Arc<TenantShare>,
    pub(crate) replica: Option<Arc<Replica>>,
    pub(crate) renewal: Renewal,
}

/// Where a handle's connections come from when those it had are closed or refused. Weak: the handle is kept by what it
/// would keep.
#[derive(Clone)]
pub(crate) struct Renewal {
    pub(crate) from: Weak<dyn Renew>,
    /// For one acquire, with everything that it takes.
    pub(crate) limit: Duration,
}

#[async_trait]
pub(crate) trait Renew: Send + Sync {
    /// The tenant's handle as it is now.
    async fn renew(self: Arc<Self>, tenant: TenantId) -> Result<TenantPool, ResolveError>;
    /// What was known of the tenant at that time is out of date.
    fn mark_stale(&self, tenant: TenantId, since: Instant);
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
        Self(Arc::new(Inner { tenant, source: Source::Own(pool), reads: false }))
    }
    pub(crate) fn budgeted(tenant: Tenant, budgeted: Budgeted) -> Self {
        Self(Arc::new(Inner { tenant, source: Source::Budget(budgeted), reads: false }))
    }
    /// Whose it is, as of the resolve that gave this handle.
    pub fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }
    /// Connections that this process has open for the tenant at this moment, and how many of them are in use: those to
    /// its primary and to its replica together.
    pub fn connections(&self) -> (usize, usize) {
        match &self.0.source {
            Source::Budget(Budgeted { primary, replica, .. }) => {
                let (open, busy) = primary.usage();
                let (more, of_them) = replica.as_ref().map_or((0, 0), |replica| replica.usage());
                (open + more, busy + of_them)
            }
            Source::Own(pool) => (pool.size() as usize, (pool.size() as usize).saturating_sub(pool.num_idle())),
        }
    }
    /// For reads that may lag: on the tenant's replica (a physical standby, see
    /// [`TenantDatabase::replica_of`](crate::directory::TenantDatabase::replica_of)) if it has one, else on its primary.
    ///
    /// Which one it is may change from one connection to the next: where the replica lets nobody in within half a second, is
    /// full, or does not know a new login yet, the connection comes from the primary, and for the next second most others do
    /// so without asking. What holds a session for longer (a transaction, [`acquire`](Self::acquire)) stays where it is.
    ///
    /// What is read may be older than what this same caller has just written: a standby replays what the primary has
    /// committed, a moment later. A write is refused with 25006 there, and not on the primary: this handle is no guard
    /// against writing. A query that is in the way of the replay for longer than the standby allows
    /// (`max_standby_streaming_delay`) ends with 40001; it may be repeated. One that runs while the standby is stopped
    /// fails, as on any server.
    ///
    /// ```no_run
    /// # async fn example(db: tenantry::TenantPool) -> sqlx::Result<()> {
    /// let notes: i64 = sqlx::query_scalar("SELECT count(*) FROM notes").fetch_one(&db.read()).await?;
    /// # Ok(()) }
    /// ```
    pub fn read(&self) -> TenantPool {
        match &self.0.source {
            Source::Budget(_) if !self.0.reads => self.with(self.0.tenant.clone(), true),
            _ => self.clone(),
        }
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
    pub(crate) fn own(&self) -> &PgPool {
        match &self.0.source {
            Source::Own(pool) => pool,
            Source::Budget(_) => panic!("it has no pool"),
        }
    }
    /// Gets nothing more from its budgets: what is idle is closed, what is out when it comes back.
    pub(crate) fn retire(&self) {
        if let Source::Budget(Budgeted { primary, replica, .. }) = &self.0.source {
            primary.retire();
            replica.iter().for_each(|replica| replica.retire());
        }
    }
    /// The same connections for the tenant as it is now.
    pub(crate) fn of(&self, tenant: &Tenant) -> TenantPool {
        if self.0.tenant == *tenant { self.clone() } else { self.with(tenant.clone(), self.0.reads) }
    }
    fn with(&self, tenant: Tenant, reads: bool) -> TenantPool {
        Self(Arc::new(Inner { tenant, source: self.0.source.clone(), reads }))
    }

    /// A connection for as long as it is held.
    async fn checkout(&self) -> Result<Checked<'_>, sqlx::Error> {
        take_turns().await;
        let budgeted = match &self.0.source {
            Source::Budget(budgeted) => budgeted,
            Source::Own(pool) => {
                let asked = Instant::now();
                return pool.acquire().await.map(Checked::Own).map_err(|error| phased(error, asked.elapsed()));
            }
        };
        let replica = budgeted.replica.as_ref().filter(|_| self.0.reads);
        let at_once = replica.map_or_else(|| budgeted.primary.checkout(), |replica| replica.checkout());
        if let Some(at_once) = at_once {
            return Ok(Checked::Budget(at_once));
        }
        let asked = Instant::now();
        // Whoever waits inside knows better for what: the outer limit is for many renewals, one after the other.
        let limit = budgeted.renewal.limit + SLACK + if self.0.reads { 2 * replica::LIMIT } else { Duration::ZERO };
        let waited = tokio::time::timeout(limit, self.renewing(budgeted.clone())).await;
        waited.unwrap_or_else(|_| Err(AcquireError::ConnectTimeout { waited: asked.elapsed() }.into()))
    }

    /// A retired member was evicted or its login replaced: there is another one, as often as that happens within the
    /// limit. A refused login is looked up again once, each one; on a replica too, and then the primary is asked, which
    /// knows each login first.
    async fn renewing(&self, mut at: Budgeted) -> Result<Checked<'static>, sqlx::Error> {
        let (mut reads, mut looked_up) = (self.0.reads, false);
        loop {
            let since = Instant::now();
            let replica = at.replica.clone().filter(|_| reads);
            let found = match &replica {
                Some(replica) => match replica.acquire(at.renewal.limit).await {
                    replica::Answer::Found(checkout) => Ok(checkout),
                    replica::Answer::Refused(error) if !looked_up => Err(error),
                    replica::Answer::Refused(_) | replica::Answer::Elsewhere => {
                        (reads, looked_up) = (false, false);
                        continue;
                    }
                },
                None => at.primary.acquire().await,
            };
            match found {
                Ok(Some(checkout)) => return Ok(Checked::Budget(checkout)),
                Ok(None) => {}
                Err(error) if is_refused(&error) && !looked_up => {
                    looked_up = true;
                    at.renewal.mark_stale(self.0.tenant.id(), since);
                }
                Err(error) => return Err(error),
            }
            // Nothing above must wait, and the limit is only seen where something does.
            tokio::task::yield_now().await;
            match at.renewal.renew(self.0.tenant.id()).await {
                Ok(newer) => match &newer.0.source {
                    Source::Budget(newer) => {
                        // Another rotation may have come in between: what is refused once more is another login.
                        looked_up &= Arc::ptr_eq(&newer.primary, &at.primary);
                        at = newer.clone();
                    }
                    Source::Own(pool) => return pool.acquire().await.map(Checked::Own),
                },
                // What the replica says is no reason to fail: the primary may still have connections.
                Err(_) if replica.is_some() => (reads, looked_up) = (false, false),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Where the server answers sooner than a task goes on, nothing in a query ever waits: one that asks without a pause would
/// keep its thread from all other tasks, and tokio's own budget knows nothing of what sqlx reads. So a task that made this
/// thread's last calls, all of them, lets the others have a turn: where others had one in between, nobody has to.
async fn take_turns() {
    const IN_A_ROW: u32 = 16;
    type Last = (Option<tokio::task::Id>, u32);
    thread_local! { static LAST: Cell<Last> = const { Cell::new((None, 0)) } }
    let task = tokio::task::try_id();
    let (last, calls) = LAST.get();
    let calls = if last == task { calls + 1 } else { 1 };
    if calls < IN_A_ROW {
        return LAST.set((task, calls));
    }
    LAST.set((task, 0));
    tokio::task::yield_now().await;
}

/// A connection on loan. Unless it is said to be [`clean`](Self::clean), it is not trusted when it comes back.
enum Checked<'a> {
    Own(PoolConnection<Postgres>),
    Budget(Checkout<'a>),
}

impl Checked<'_> {
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
    fn mark_stale(&self, tenant: TenantId, since: Instant) {
        if let Some(from) = self.from.upgrade() {
            from.mark_stale(tenant, since);
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
