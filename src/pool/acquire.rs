//! How a handle takes a connection: an idle one at once, else a series of attempts until its time limit.
//!
//! [`Search`] is that series. Each attempt goes to the tenant's replica or primary. If the share is retired or the
//! login is refused, the tenant is resolved again through [`Renew`], and the next attempt uses its new shares.
use super::attempt::Attempt;
use super::budget::{PgCheckedOut, PgEntry, TenantShare};
use super::replica::{CONNECT_LIMIT, Replica};
use super::{AcquireError, Source, TenantPool};
use crate::error::ResolveError;
use crate::rt;
use crate::tenant::TenantId;
use async_trait::async_trait;
use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Added to the time limit of a whole acquire, so that the inner timeouts fire first and return the more precise error.
const SLACK: Duration = Duration::from_millis(250);

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

/// A connection for one call. Unless the call ends with a release of its [`PgCheckedOut`], the connection is cleared
/// and pinged before it serves again.
pub(super) enum BorrowedConnection<'a> {
    /// Of a pool that the application created.
    Own(PoolConnection<Postgres>),
    /// Of a server pool of the resolver.
    Budget(PgCheckedOut<'a>),
}

impl BorrowedConnection<'_> {
    pub(super) fn session(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        match self {
            Self::Own(connection) => Ok(connection),
            Self::Budget(checked_out) => checked_out.session(),
        }
    }
    pub(super) fn into_pool_connection(self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        match self {
            Self::Own(connection) => Ok(connection),
            Self::Budget(checked_out) => checked_out.into_pool_connection(),
        }
    }
}

impl TenantPool {
    /// Takes a connection for one call. Without a wait if an idle one needs no ping.
    pub(super) async fn checkout(&self) -> Result<BorrowedConnection<'_>, sqlx::Error> {
        rt::yield_after_many_calls().await;
        let budgeted = match &self.0.source {
            Source::Budget(budgeted) => budgeted,
            // Boxed, as the search below: the future contains that of opening a connection, which takes kilobytes and
            // would be part of every query's future.
            Source::Own(pool) => return Box::pin(acquire_from(pool)).await,
        };
        let replica = budgeted.replica.as_ref().filter(|_| self.0.reads);
        let idle = replica.map_or_else(|| budgeted.primary.checkout(), |replica| replica.checkout());
        if let Some(checked_out) = idle {
            return Ok(BorrowedConnection::Budget(checked_out));
        }
        let entry = match replica {
            Some(_) => None,
            None => match budgeted.primary.wait_for_returned().await {
                Ok(returned) => return Ok(BorrowedConnection::Budget(returned)),
                Err(entry) => Some(entry),
            },
        };
        Box::pin(self.search(budgeted, entry)).await
    }

    /// The waits of a search have limits of their own and report why they failed. The limit here only bounds a series
    /// of renewals, so it is a little longer. `entry` is a wait at the primary that has begun.
    async fn search(
        &self, budgeted: &Budgeted, entry: Option<PgEntry>,
    ) -> Result<BorrowedConnection<'static>, sqlx::Error> {
        let started = Instant::now();
        let for_replica = if self.0.reads { 2 * CONNECT_LIMIT } else { Duration::ZERO };
        let limit = budgeted.renewal.limit + SLACK + for_replica;
        let (tenant, shares) = (self.0.tenant.id(), budgeted.clone());
        let search = Search { tenant, shares, use_replica: self.0.reads, entry, is_looked_up: false };
        match tokio::time::timeout(limit, search.run()).await {
            Ok(found) => found,
            Err(_) => Err(AcquireError::ConnectTimeout { waited: started.elapsed() }.into()),
        }
    }
}

/// What resolving the tenant again gave.
enum Renewed {
    /// The search has shares to try next.
    Shares,
    /// The tenant has a pool of the application's own now.
    OwnPool(PgPool),
}

/// One caller's search for a connection.
struct Search {
    tenant: TenantId,
    shares: Budgeted,
    use_replica: bool,
    /// The wait at the primary with which the first attempt continues.
    entry: Option<PgEntry>,
    /// Whether the tenant was resolved again because its present login was refused.
    is_looked_up: bool,
}

impl Search {
    /// Makes attempts until one gives a connection or fails for good.
    ///
    /// After a retired share the loop continues with the new shares, however often that happens within the time limit.
    /// If a server refuses a login, the tenant is resolved again once for that login. If the replica refuses it once
    /// more, the primary is used: it knows new logins first.
    async fn run(mut self) -> Result<BorrowedConnection<'static>, sqlx::Error> {
        loop {
            let since = Instant::now();
            match self.attempt().await? {
                Attempt::Connection(checked_out) => return Ok(BorrowedConnection::Budget(checked_out)),
                Attempt::Retired => {}
                Attempt::LoginRefused(_) if !self.is_looked_up => {
                    self.is_looked_up = true;
                    self.shares.renewal.mark_stale(self.tenant, since);
                }
                Attempt::LoginRefused(error) if self.replica().is_none() => return Err(error),
                Attempt::LoginRefused(_) | Attempt::UsePrimary => {
                    self.switch_to_primary();
                    continue;
                }
            }
            // If nothing above returned `Pending`, this loop would never let the outer timeout fire.
            tokio::task::yield_now().await;
            if let Renewed::OwnPool(pool) = self.renew().await? {
                return Ok(BorrowedConnection::Own(pool.acquire().await?));
            }
        }
    }

    async fn attempt(&mut self) -> Result<Attempt, sqlx::Error> {
        if let Some(replica) = self.replica() {
            return Ok(replica.acquire(self.shares.renewal.limit).await);
        }
        let primary = &self.shares.primary;
        let entry = self.entry.take().unwrap_or_else(|| primary.enter());
        Attempt::from_result(primary.acquire(entry).await)
    }

    /// Resolves the tenant again and takes its new shares.
    async fn renew(&mut self) -> Result<Renewed, AcquireError> {
        let newer = match self.shares.renewal.renew(self.tenant).await {
            Ok(newer) => newer,
            // A read on the replica must not fail because the tenant cannot be resolved now: the primary share that
            // this search already has may still work.
            Err(_) if self.replica().is_some() => {
                self.switch_to_primary();
                return Ok(Renewed::Shares);
            }
            Err(error) => return Err(error),
        };
        match &newer.0.source {
            Source::Budget(newer) => {
                // New shares mean a new login or placement, which may be refused and looked up once more.
                self.is_looked_up &= Arc::ptr_eq(&newer.primary, &self.shares.primary);
                self.shares = newer.clone();
                Ok(Renewed::Shares)
            }
            Source::Own(pool) => Ok(Renewed::OwnPool(pool.clone())),
        }
    }

    /// The replica, if the next attempt goes to it.
    fn replica(&self) -> Option<&Arc<Replica>> {
        self.shares.replica.as_ref().filter(|_| self.use_replica)
    }
    fn switch_to_primary(&mut self) {
        (self.use_replica, self.is_looked_up) = (false, false);
    }
}

impl Renewal {
    async fn renew(&self, tenant: TenantId) -> Result<TenantPool, AcquireError> {
        match self.from.upgrade() {
            Some(resolver) => Ok(resolver.renew(tenant).await?),
            None => Err(AcquireError::Closed),
        }
    }
    fn mark_stale(&self, tenant: TenantId, since: Instant) {
        if let Some(resolver) = self.from.upgrade() {
            resolver.mark_stale(tenant, since);
        }
    }
}

/// Acquires from a pool that the application created. Replaces sqlx's pool errors, which carry no details, by an
/// [`AcquireError`].
async fn acquire_from(pool: &PgPool) -> Result<BorrowedConnection<'static>, sqlx::Error> {
    let started = Instant::now();
    match pool.acquire().await {
        Ok(connection) => Ok(BorrowedConnection::Own(connection)),
        Err(sqlx::Error::PoolTimedOut) => Err(AcquireError::ConnectTimeout { waited: started.elapsed() }.into()),
        Err(sqlx::Error::PoolClosed) => Err(AcquireError::Closed.into()),
        Err(error) => Err(error),
    }
}
