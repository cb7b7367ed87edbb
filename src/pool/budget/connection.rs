//! Connections as sqlx has them: each in a pool of its own that can hold no second one, so that a real
//! [`PoolConnection`] can be handed out and finds its way back.
use super::circuit_breaker::CircuitBreaker;
use super::refusal::CountSessions;
use super::refusal::Refusals;
use super::scheduler::{Key, SlotId};
use super::server::{Lease, Opener, ServerPool};
use crate::pool::clock::coarse;
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

/// It has so long to answer: whoever meets a connection that leads nowhere is served by another one within a second.
const PING: Duration = Duration::from_millis(500);

pub(crate) type PgServer = ServerPool<PgOpener>;

/// A tenant's side. It has no connection and no task.
pub(crate) struct TenantShare {
    server: Arc<PgServer>,
    key: Key,
    target: Target,
}

/// What a tenant's connections are opened with. It has no Debug: the options print the password.
pub(crate) struct Target {
    tenant: TenantId,
    options: PgConnectOptions,
}

/// How a connection passes from one user to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handover {
    /// Whether `DISCARD ALL` runs in between.
    pub(crate) discard: bool,
    /// What was idle for longer is asked whether it lives.
    pub(crate) ping_after: Duration,
    /// A connection that is not ready for the next user after this time is cut.
    pub(crate) release_timeout: Duration,
}

pub(crate) struct PgOpener {
    server: Weak<PgServer>,
    handover: Handover,
    refusals: Refusals,
    next: AtomicU64,
    /// Raised by each error of a connection: whatever was idle then is asked before it is used.
    doubts: AtomicU64,
    /// Of a standby: whether it lets anybody in.
    circuit_breaker: CircuitBreaker,
}

pub(crate) struct Conn {
    id: u64,
    tenant: TenantId,
    pool: PgPool,
    /// Out of its pool while it is idle: putting it in and out would cost a ping each time.
    held: Option<PoolConnection<Postgres>>,
    /// When it was last taken out or asked whether it lives, roughly: it has not been idle for longer.
    since: Duration,
    doubts: u64,
}

/// sqlx gives a connection back in a task, for which it needs a runtime; without one it can only be cut.
impl Drop for Conn {
    fn drop(&mut self) {
        if let Some(held) = self.held.take_if(|_| Handle::try_current().is_err()) {
            drop(held.detach());
        }
    }
}

impl PgOpener {
    pub(crate) fn new(server: Weak<PgServer>, handover: Handover, counts: Option<Arc<dyn CountSessions>>) -> Self {
        let (next, doubts, circuit_breaker) = Default::default();
        Self { server, handover, refusals: Refusals::new(counts), next, doubts, circuit_breaker }
    }

    /// Whether a connection needs no question before it is used.
    fn fit(&self, now: Duration) -> impl Fn(&Conn) -> bool + use<> {
        let (doubts, ping_after) = (self.doubts.load(Relaxed), self.handover.ping_after);
        move |c| c.held.is_some() && c.doubts == doubts && now.saturating_sub(c.since) < ping_after
    }

    fn conn(&self, id: u64, tenant: TenantId, pool: PgPool, held: Option<PoolConnection<Postgres>>) -> Box<Conn> {
        Box::new(Conn { id, tenant, pool, held, since: coarse(), doubts: self.doubts.load(Relaxed) })
    }
}

impl Opener for PgOpener {
    type Target = Target;
    /// In a box: it is moved at each checkout.
    type Conn = Box<Conn>;

    async fn open(&self, target: &Target, slot: SlotId, limit: Duration) -> Result<Box<Conn>, sqlx::Error> {
        let id = self.next.fetch_add(1, Relaxed);
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
                        server.is_back(slot, id, cleared.is_ok());
                    }
                    cleared.map(|()| true)
                })
            })
            .connect_lazy_with(target.options.clone());
        // The deadline is the caller's: sqlx's own pool asks a server that is starting or full again until then.
        let reserve = self.refusals.reserve(limit);
        let held = match timeout(limit - reserve, rt::poll_batched(pool.acquire())).await {
            Ok(held) => held?,
            Err(_) => {
                let refused = self.refusals.login_limit(target.tenant, &target.options, began.elapsed(), reserve);
                match refused.await {
                    Some(error) => return Err(error.into()),
                    None => rt::poll_batched(pool.acquire()).await?,
                }
            }
        };
        Ok(self.conn(id, target.tenant, pool, Some(held)))
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

/// A session that waits for the rest of a `COPY … FROM STDIN` never becomes ready: without a deadline it would keep its
/// slot for ever.
async fn clear_in_time(session: &mut PgConnection, handover: Handover) -> Result<(), sqlx::Error> {
    match timeout(handover.release_timeout, clear(session, handover.discard)).await {
        Ok(cleared) => cleared,
        Err(_) => Err(sqlx::Error::Io(ErrorKind::TimedOut.into())),
    }
}

/// What one user of a tenant may leave to the next: a transaction never, session state unless the host wants none.
async fn clear(session: &mut PgConnection, discard: bool) -> Result<(), sqlx::Error> {
    // In no transaction, each statement of the simple protocol begins its own.
    const IS_OPEN: &str = "SELECT now() <> statement_timestamp()";
    match session.fetch_one(sqlx::raw_sql(IS_OPEN)).await.and_then(|row| row.try_get::<bool, _>(0)) {
        Ok(false) => {}
        // A transaction that has failed refuses the question.
        Ok(true) | Err(sqlx::Error::Database(_)) => {
            session.execute("ROLLBACK").await?;
        }
        Err(error) => return Err(error),
    }
    if discard {
        // sqlx must not count on statements that are no more.
        session.clear_cached_statements().await?;
        session.execute("DISCARD ALL").await?;
    }
    Ok(())
}

impl PgServer {
    /// sqlx has it back, and puts it into its pool now.
    fn is_back(self: &Arc<Self>, slot: SlotId, id: u64, sound: bool) {
        let lent = self.scheduler().returned(slot, |conn| conn.id == id);
        match lent {
            Some(conn) if sound => {
                let conn = self.opener.conn(id, conn.tenant, conn.pool.clone(), None);
                self.give_back(slot, conn);
            }
            Some(_) => self.scheduler().abandon(slot),
            None => {}
        }
    }

    /// A connection has failed, so others may have.
    fn doubt(&self) {
        self.opener.doubts.fetch_add(1, Relaxed);
    }
}

impl TenantShare {
    pub(crate) fn new(tenant: TenantId, server: Arc<PgServer>, cap: u32, options: PgConnectOptions) -> Self {
        Self { key: server.join(cap), server, target: Target { tenant, options } }
    }
    /// Connections that are open, and how many of them are in use.
    pub(crate) fn usage(&self) -> (usize, usize) {
        self.server.scheduler().usage(self.key)
    }
    /// Whether all that it may have is in use, for whichever reason.
    pub(crate) fn is_full(&self) -> bool {
        self.server.scheduler().is_full(self.key)
    }
    /// The same for all tenants of the server.
    pub(crate) fn circuit_breaker(&self) -> &CircuitBreaker {
        &self.server.opener.circuit_breaker
    }
    /// Gets nothing any more: what is idle is closed, what is out when it comes back.
    pub(crate) fn retire(&self) {
        self.server.retire(self.key);
    }
    /// One that is idle and known to live: nothing is waited for.
    pub(crate) fn checkout(&self) -> Option<Checkout<'_>> {
        let now = coarse();
        let fit = self.server.opener.fit(now);
        let (slot, mut conn) = self.server.checkout(self.key, |conn| fit(conn))?;
        conn.since = now;
        Some(Checkout { server: Of::Handle(&self.server), slot, conn: Some(conn) })
    }

    /// `None`: it is retired.
    pub(crate) async fn acquire(&self) -> Result<Option<Checkout<'static>>, sqlx::Error> {
        self.acquired().instrument(tracing::debug_span!("acquire", tenant = %self.target.tenant)).await
    }

    async fn acquired(&self) -> Result<Option<Checkout<'static>>, sqlx::Error> {
        let Some(mut lease) = self.server.acquire(self.key, &self.target).await? else { return Ok(None) };
        lease = match self.ready(lease) {
            Ok(checkout) => return Ok(Some(checkout)),
            Err(lease) => lease,
        };
        if !self.revive(&mut lease).await {
            tracing::debug!("an idle connection does not answer any more: another one is opened");
            self.server.doubt();
            lease = self.server.reopen(lease, &self.target).await?;
        }
        Ok(lease.conn.take().map(|conn| self.taken(lease.slot, conn)))
    }

    fn taken(&self, slot: SlotId, conn: Box<Conn>) -> Checkout<'static> {
        Checkout { server: Of::Own(self.server.clone()), slot, conn: Some(conn) }
    }

    fn ready(&self, mut lease: Lease<PgOpener>) -> Result<Checkout<'static>, Lease<PgOpener>> {
        let fit = self.server.opener.fit(coarse());
        match lease.conn.take_if(|conn| fit(conn)) {
            Some(conn) => Ok(self.taken(lease.slot, conn)),
            None => Err(lease),
        }
    }

    /// Out of its pool, and asked whether it lives.
    async fn revive(&self, lease: &mut Lease<PgOpener>) -> bool {
        let Some(conn) = lease.conn.as_mut() else { return false };
        let doubts = self.server.opener.doubts.load(Relaxed);
        let alive = timeout(PING, async {
            if conn.held.is_none() {
                conn.held = Some(conn.pool.acquire().await?);
            }
            match conn.held.as_mut() {
                Some(held)
                    if conn.doubts != doubts
                        || coarse().saturating_sub(conn.since) >= self.server.opener.handover.ping_after =>
                {
                    held.ping().await
                }
                _ => Ok(()),
            }
        });
        let alive = matches!(alive.await, Ok(Ok(())));
        (conn.since, conn.doubts) = (coarse(), doubts);
        alive
    }
}

impl Drop for TenantShare {
    fn drop(&mut self) {
        self.server.leave(self.key);
    }
}

/// A connection in use. Dropped, it goes the long way: through sqlx's pool, which rolls back and asks whether it lives.
pub(crate) struct Checkout<'a> {
    server: Of<'a>,
    slot: SlotId,
    conn: Option<Box<Conn>>,
}

/// The server, without counting one more reference where the caller's handle outlives the checkout.
enum Of<'a> {
    Handle(&'a Arc<PgServer>),
    Own(Arc<PgServer>),
}
impl Deref for Of<'_> {
    type Target = Arc<PgServer>;
    fn deref(&self) -> &Arc<PgServer> {
        match self {
            Self::Handle(server) => server,
            Self::Own(server) => server,
        }
    }
}

impl Checkout<'_> {
    /// The same, whatever becomes of the handle that it came from.
    pub(crate) fn owned(mut self) -> Checkout<'static> {
        Checkout { server: Of::Own(self.server.clone()), slot: self.slot, conn: self.conn.take() }
    }

    pub(crate) fn session(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        let held = self.conn.as_mut().and_then(|conn| conn.held.as_deref_mut());
        held.ok_or(sqlx::Error::WorkerCrashed)
    }

    /// What was asked of it is answered in full: the next user may have it as it is.
    pub(crate) fn clean(mut self) {
        if self.server.opener.handover.discard {
            return;
        }
        if let Some(conn) = self.conn.take() {
            self.server.give_back(self.slot, conn);
        }
    }

    /// A statement has failed: an error of the server's own leaves the connection sound. After an error of the protocol
    /// the session may wait for anything (the rest of a `COPY … FROM STDIN`, say), so it is closed at once. A lost
    /// connection goes the long way, which sees the end of its session before the slot is free.
    pub(crate) fn failed(mut self, error: &sqlx::Error) {
        match error {
            sqlx::Error::Protocol(_) => {
                if let Some(conn) = self.conn.take() {
                    self.server.discard(self.slot, conn, "a statement broke the protocol");
                }
            }
            error if crate::sqlstate::is_connection_lost(error) => self.server.doubt(),
            sqlx::Error::Database(_) | sqlx::Error::RowNotFound => self.clean(),
            _ => {}
        }
    }

    /// The real thing, which finds its way back by itself.
    pub(crate) fn into_real(mut self) -> Option<PoolConnection<Postgres>> {
        self.lend()
    }

    fn lend(&mut self) -> Option<PoolConnection<Postgres>> {
        let mut conn = self.conn.take()?;
        let held = conn.held.take();
        // Known to be out before it is: it may come back at once.
        self.server.scheduler().lend(self.slot, conn);
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
            self.server.scheduler().abandon(self.slot);
        }
    }
}
