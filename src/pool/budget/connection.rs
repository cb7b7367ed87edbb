//! The real connections of a server pool. Each [`PgConnection`] lives in an sqlx pool of its own with one connection.
//!
//! `TenantPool` gets a [`Checkout`] from its [`TenantShare`], runs a statement and returns it. The sqlx pool exists so
//! that a caller of `TenantPool::acquire` gets a real [`PoolConnection`]: when the caller drops it, sqlx runs the
//! `after_release` hook, which rolls back and reports the connection to the server pool.
//!
//! Invariants: a connection that may have an open transaction, an unread answer or (with `discard_on_release`) session
//! state is never given to the next caller before it was cleared. A connection that may be dead is pinged before use.
use super::circuit_breaker::CircuitBreaker;
use super::login_limit::{CountSessions, LoginLimitProbe};
use super::scheduler::{Key, SlotId};
use super::server::{Lease, Opener, ServerPool};
use crate::pool::clock::coarse_time;
use crate::rt;
use crate::tenant::TenantId;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection, Executor, Postgres, Row};
use std::io::ErrorKind;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::Instrument;

/// Time limit for a ping. Short, so that a caller that gets a dead connection has another one within a second.
const PING_LIMIT: Duration = Duration::from_millis(500);

pub(crate) type PgServer = ServerPool<PgOpener>;

/// A tenant's share of a server pool: a key and the options for its connections. An unused share owns no connection and
/// no task. Dropping it closes the tenant's connections.
pub(crate) struct TenantShare {
    server: Arc<PgServer>,
    key: Key,
    target: Target,
}

/// What a tenant's connections are opened with. Must not implement `Debug`: the options print the password.
pub(crate) struct Target {
    tenant: TenantId,
    options: PgConnectOptions,
}

/// What happens to a connection between one caller and the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handover {
    /// Whether `DISCARD ALL` runs when a connection is returned.
    pub(crate) discard: bool,
    /// A connection that was idle for longer is pinged before use.
    pub(crate) ping_after: Duration,
    /// Time limit for clearing a returned connection. After it the connection is closed.
    pub(crate) release_timeout: Duration,
}

pub(crate) struct PgOpener {
    server: Weak<PgServer>,
    handover: Handover,
    login_limit: LoginLimitProbe,
    next_id: AtomicU64,
    /// Counts lost connections on this server. Each connection remembers the count at its last check; if the count has
    /// grown since, other connections may be dead too, so it is pinged before use.
    lost_connections: AtomicU64,
    /// Used only if the server is a standby: open while it refuses or delays connections.
    circuit_breaker: CircuitBreaker,
}

pub(crate) struct Conn {
    id: u64,
    tenant: TenantId,
    pool: PgPool,
    /// The connection itself. It stays outside `pool` while it is idle, because sqlx pings at each return to the pool.
    /// `None` after the connection was returned through `pool`, until the next checkout acquires it from there.
    held: Option<PoolConnection<Postgres>>,
    /// Coarse time of the last checkout or ping: an upper bound for how long it has been idle.
    checked_at: Duration,
    /// [`PgOpener::lost_connections`] at the last ping.
    lost_connections: u64,
}

/// sqlx returns a connection to its pool in a spawned task and panics without a runtime. Without one, detach and close
/// it.
impl Drop for Conn {
    fn drop(&mut self) {
        if let Some(held) = self.held.take_if(|_| Handle::try_current().is_err()) {
            drop(held.detach());
        }
    }
}

impl PgOpener {
    pub(crate) fn new(server: Weak<PgServer>, handover: Handover, counter: Option<Arc<dyn CountSessions>>) -> Self {
        let (next_id, lost_connections, circuit_breaker) = Default::default();
        let login_limit = LoginLimitProbe::new(counter);
        Self { server, handover, login_limit, next_id, lost_connections, circuit_breaker }
    }

    /// A predicate: whether a connection may be used at `now` without a ping.
    fn usable_without_ping(&self, now: Duration) -> impl Fn(&Conn) -> bool + use<> {
        let (lost, ping_after) = (self.lost_connections.load(Relaxed), self.handover.ping_after);
        move |c| c.held.is_some() && c.lost_connections == lost && now.saturating_sub(c.checked_at) < ping_after
    }

    fn new_conn(&self, id: u64, tenant: TenantId, pool: PgPool, held: Option<PoolConnection<Postgres>>) -> Box<Conn> {
        let (checked_at, lost_connections) = (coarse_time(), self.lost_connections.load(Relaxed));
        Box::new(Conn { id, tenant, pool, held, checked_at, lost_connections })
    }
}

impl Opener for PgOpener {
    type Target = Target;
    /// Boxed, because each checkout moves it.
    type Conn = Box<Conn>;

    async fn open(&self, target: &Target, slot: SlotId, limit: Duration) -> Result<Box<Conn>, sqlx::Error> {
        let id = self.next_id.fetch_add(1, Relaxed);
        let began = Instant::now();
        let (server, handover) = (self.server.clone(), self.handover);
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .acquire_timeout(limit)
            .after_release(move |session, _| {
                let server = server.clone();
                Box::pin(async move {
                    let cleared = clear_in_time(session, handover).await;
                    if let Some(server) = server.upgrade() {
                        server.accept_returned(slot, id, cleared.is_ok());
                    }
                    cleared.map(|()| true)
                })
            })
            .connect_lazy_with(target.options.clone());
        // sqlx's pool retries until its deadline while the server is starting or has no free connection (53300). Keep
        // part of the time to find out whether the login's own limit is the reason; if it is not, retry for the rest.
        let reserve = self.login_limit.reserve(limit);
        let held = match timeout(limit - reserve, rt::poll_batched(pool.acquire())).await {
            Ok(held) => held?,
            Err(_) => {
                let waited = began.elapsed();
                match self.login_limit.find_login_limit(target.tenant, &target.options, waited, reserve).await {
                    Some(error) => return Err(error.into()),
                    None => rt::poll_batched(pool.acquire()).await?,
                }
            }
        };
        Ok(self.new_conn(id, target.tenant, pool, Some(held)))
    }

    async fn close(&self, mut conn: Box<Conn>, why: &'static str) {
        tracing::debug!(tenant = %conn.tenant, why, "a connection is closed");
        if let Some(held) = conn.held.take() {
            let _ = held.close().await;
        }
        conn.pool.close().await;
    }

    fn is_gone(conn: &Self::Conn) -> bool {
        conn.pool.size() == 0
    }
}

/// Clears a returned session within `release_timeout`. Without the deadline, a session that still expects the rest of a
/// `COPY … FROM STDIN` would never become ready and would keep its slot for ever.
async fn clear_in_time(session: &mut PgConnection, handover: Handover) -> Result<(), sqlx::Error> {
    match timeout(handover.release_timeout, clear(session, handover.discard)).await {
        Ok(cleared) => cleared,
        Err(_) => Err(sqlx::Error::Io(ErrorKind::TimedOut.into())),
    }
}

/// Rolls back an open transaction and, if `discard` is set, resets the session state.
async fn clear(session: &mut PgConnection, discard: bool) -> Result<(), sqlx::Error> {
    // Outside a transaction block the statement starts its own transaction, so the two times are equal.
    const IN_TRANSACTION: &str = "SELECT now() <> statement_timestamp()";
    match session.fetch_one(sqlx::raw_sql(IN_TRANSACTION)).await.and_then(|row| row.try_get::<bool, _>(0)) {
        Ok(false) => {}
        // A failed transaction rejects every statement (25P02) until it is rolled back.
        Ok(true) | Err(sqlx::Error::Database(_)) => {
            session.execute("ROLLBACK").await?;
        }
        Err(error) => return Err(error),
    }
    if discard {
        // `DISCARD ALL` deallocates prepared statements. sqlx must not use its cached names for them afterwards.
        session.clear_cached_statements().await?;
        session.execute("DISCARD ALL").await?;
    }
    Ok(())
}

impl PgServer {
    /// Takes back a lent connection. sqlx calls the hook before it puts the connection into the sqlx pool, so `held` is
    /// `None`: the next checkout acquires it from there. A connection that could not be cleared only frees its slot.
    fn accept_returned(self: &Arc<Self>, slot: SlotId, id: u64, cleared: bool) {
        let lent = self.lock_scheduler().take_lent(slot, |conn| conn.id == id);
        match lent {
            Some(conn) if cleared => {
                let conn = self.opener.new_conn(id, conn.tenant, conn.pool.clone(), None);
                self.give_back(slot, conn);
            }
            Some(_) => self.lock_scheduler().abandon(slot),
            None => {}
        }
    }

    /// Records a lost connection, so that all idle connections to this server are pinged before their next use.
    fn record_lost_connection(&self) {
        self.opener.lost_connections.fetch_add(1, Relaxed);
    }
}

impl TenantShare {
    /// Joins the server pool with at most `cap` connections. Opens nothing.
    pub(crate) fn new(tenant: TenantId, server: Arc<PgServer>, cap: u32, options: PgConnectOptions) -> Self {
        Self { key: server.join(cap), server, target: Target { tenant, options } }
    }
    /// The tenant's open connections to this server, and how many of them are in use.
    pub(crate) fn usage(&self) -> (usize, usize) {
        self.server.lock_scheduler().usage(self.key)
    }
    /// Whether no further connection is possible now: the tenant is at its cap, or the server pool has no free slot.
    pub(crate) fn is_full(&self) -> bool {
        self.server.lock_scheduler().is_full(self.key)
    }
    /// The circuit breaker of the server. All its tenants share it.
    pub(crate) fn circuit_breaker(&self) -> &CircuitBreaker {
        &self.server.opener.circuit_breaker
    }
    /// Stops serving the tenant: idle connections are closed now, connections in use when they are returned.
    pub(crate) fn retire(&self) {
        self.server.retire(self.key);
    }
    /// Takes an idle connection that needs no ping, without waiting.
    pub(crate) fn checkout(&self) -> Option<Checkout<'_>> {
        let now = coarse_time();
        let is_usable = self.server.opener.usable_without_ping(now);
        let (slot, mut conn) = self.server.checkout(self.key, |conn| is_usable(conn))?;
        conn.checked_at = now;
        Some(Checkout { server: ServerRef::Borrowed(&self.server), slot, conn: Some(conn) })
    }

    /// Waits for a connection or opens one; pings it first if it was idle for longer than `ping_after`. `None`: the
    /// share is retired, and the caller must resolve the tenant again.
    pub(crate) async fn acquire(&self) -> Result<Option<Checkout<'static>>, sqlx::Error> {
        self.acquire_and_check().instrument(tracing::debug_span!("acquire", tenant = %self.target.tenant)).await
    }

    async fn acquire_and_check(&self) -> Result<Option<Checkout<'static>>, sqlx::Error> {
        let Some(mut lease) = self.server.acquire(self.key, &self.target).await? else { return Ok(None) };
        lease = match self.take_if_usable(lease) {
            Ok(checkout) => return Ok(Some(checkout)),
            Err(lease) => lease,
        };
        if !self.prepare(&mut lease).await {
            tracing::debug!("an idle connection did not answer a ping; opening another one");
            self.server.record_lost_connection();
            lease = self.server.reopen(lease, &self.target).await?;
        }
        Ok(lease.conn.take().map(|conn| self.new_checkout(lease.slot, conn)))
    }

    fn new_checkout(&self, slot: SlotId, conn: Box<Conn>) -> Checkout<'static> {
        Checkout { server: ServerRef::Owned(self.server.clone()), slot, conn: Some(conn) }
    }

    fn take_if_usable(&self, mut lease: Lease<PgOpener>) -> Result<Checkout<'static>, Lease<PgOpener>> {
        let is_usable = self.server.opener.usable_without_ping(coarse_time());
        match lease.conn.take_if(|conn| is_usable(conn)) {
            Some(conn) => Ok(self.new_checkout(lease.slot, conn)),
            None => Err(lease),
        }
    }

    /// Takes the connection out of its sqlx pool if it is there, and pings it if needed. False: it is dead.
    async fn prepare(&self, lease: &mut Lease<PgOpener>) -> bool {
        let Some(conn) = lease.conn.as_mut() else { return false };
        let lost = self.server.opener.lost_connections.load(Relaxed);
        let check = timeout(PING_LIMIT, async {
            if conn.held.is_none() {
                conn.held = Some(conn.pool.acquire().await?);
            }
            match conn.held.as_mut() {
                Some(held)
                    if conn.lost_connections != lost
                        || coarse_time().saturating_sub(conn.checked_at) >= self.server.opener.handover.ping_after =>
                {
                    held.ping().await
                }
                _ => Ok(()),
            }
        });
        let is_alive = matches!(check.await, Ok(Ok(())));
        (conn.checked_at, conn.lost_connections) = (coarse_time(), lost);
        is_alive
    }
}

impl Drop for TenantShare {
    fn drop(&mut self) {
        self.server.leave(self.key);
    }
}

/// A connection in use. Dropping it returns it through its sqlx pool, which waits for unread answers, rolls back and
/// pings. [`release_clean`](Self::release_clean) skips that.
pub(crate) struct Checkout<'a> {
    server: ServerRef<'a>,
    slot: SlotId,
    conn: Option<Box<Conn>>,
}

/// The server pool of a checkout. Borrowed where the share outlives the checkout, to save an atomic reference count.
enum ServerRef<'a> {
    Borrowed(&'a Arc<PgServer>),
    Owned(Arc<PgServer>),
}
impl Deref for ServerRef<'_> {
    type Target = Arc<PgServer>;
    fn deref(&self) -> &Arc<PgServer> {
        match self {
            Self::Borrowed(server) => server,
            Self::Owned(server) => server,
        }
    }
}

impl Checkout<'_> {
    /// The same checkout without the borrow of its share.
    pub(crate) fn into_owned(mut self) -> Checkout<'static> {
        Checkout { server: ServerRef::Owned(self.server.clone()), slot: self.slot, conn: self.conn.take() }
    }

    /// The session to run statements on.
    pub(crate) fn session(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        let held = self.conn.as_mut().and_then(|conn| conn.held.as_deref_mut());
        held.ok_or(sqlx::Error::WorkerCrashed)
    }

    /// Returns the connection to the tenant's idle ones at once. The caller must have read every answer and left no
    /// transaction open. With `discard_on_release` it takes the way through the sqlx pool all the same.
    pub(crate) fn release_clean(mut self) {
        if self.server.opener.handover.discard {
            return;
        }
        if let Some(conn) = self.conn.take() {
            self.server.give_back(self.slot, conn);
        }
    }

    /// Returns the connection after a failed statement. After an error that the server reported the session is usable,
    /// so it is returned as clean. After a protocol error the session may expect more input (the rest of a `COPY … FROM
    /// STDIN`, for example), so it is closed at once. A lost connection is returned through the sqlx pool, which closes
    /// it before the slot is freed.
    pub(crate) fn release_failed(mut self, error: &sqlx::Error) {
        match error {
            sqlx::Error::Protocol(_) => {
                if let Some(conn) = self.conn.take() {
                    self.server.discard(self.slot, conn, "a statement broke the protocol");
                }
            }
            error if crate::sqlstate::is_connection_lost(error) => self.server.record_lost_connection(),
            sqlx::Error::Database(_) | sqlx::Error::RowNotFound => self.release_clean(),
            _ => {}
        }
    }

    /// The sqlx connection for the caller to keep. When the caller drops it, its `after_release` hook returns it here.
    pub(crate) fn into_pool_connection(mut self) -> Option<PoolConnection<Postgres>> {
        self.lend()
    }

    fn lend(&mut self) -> Option<PoolConnection<Postgres>> {
        let mut conn = self.conn.take()?;
        let held = conn.held.take();
        // Mark the slot as lent before the caller has the connection: the caller may return it at once.
        self.server.lock_scheduler().lend(self.slot, conn);
        held
    }
}

impl Drop for Checkout<'_> {
    fn drop(&mut self) {
        if self.conn.is_none() {
            return;
        }
        if Handle::try_current().is_ok() {
            drop(self.lend());
        } else if self.conn.take().is_some() {
            self.server.lock_scheduler().abandon(self.slot);
        }
    }
}
