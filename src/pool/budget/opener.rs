//! Opens and closes the real connections of a server pool.
//!
//! Invariant: a connection that may be dead is pinged before use. That is one that was idle for longer than
//! `ping_after`, and every one that was idle when another connection to the server was lost.
use super::circuit_breaker::CircuitBreaker;
use super::clear::clear_in_time;
use super::connection::{Conn, Handover, Target};
use super::login_limit::{CountSessions, LoginLimitProbe};
use super::scheduler::SlotId;
use super::server::{Opener, ServerPool};
use crate::pool::clock::coarse_time;
use crate::rt;
use crate::tenant::TenantId;
use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, PgPoolOptions};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::time::timeout;

pub(crate) type PgServer = ServerPool<PgOpener>;

/// Two tenants that lose a connection within this time have probably lost them for the same reason.
const RESTART_WINDOW: Duration = Duration::from_secs(1);

pub(crate) struct PgOpener {
    server: Weak<PgServer>,
    pub(super) handover: Handover,
    login_limit: LoginLimitProbe,
    next_id: AtomicU64,
    /// Counts lost connections on this server. Each connection remembers the count at its last check; if the count has
    /// grown since, other connections may be dead too, so it is pinged before use.
    lost_connections: AtomicU64,
    /// The tenant of the connection that was lost last, and when.
    last_lost: Mutex<Option<(TenantId, Duration)>>,
    /// Coarse time in seconds before which an acquire does not look for expired connections again.
    pub(super) next_sweep: AtomicU64,
    /// Used only if the server is a standby: open while it refuses or delays connections.
    pub(super) circuit_breaker: CircuitBreaker,
}

impl PgOpener {
    pub(crate) fn new(server: Weak<PgServer>, handover: Handover, counter: Option<Arc<dyn CountSessions>>) -> Self {
        let (next_id, lost_connections, last_lost, next_sweep, circuit_breaker) = Default::default();
        let login_limit = LoginLimitProbe::new(counter);
        Self { server, handover, login_limit, next_id, lost_connections, last_lost, next_sweep, circuit_breaker }
    }

    fn new_conn(&self, id: u64, target: Arc<Target>, pool: PgPool, held: PoolConnection<Postgres>) -> Box<Conn> {
        let (checked_at, lost_connections) = (coarse_time(), self.lost_connections());
        let expiry = self.handover.lifetimes.draw(checked_at);
        let held = Some(held);
        Box::new(Conn { id, target, pool, held, checked_at, expiry, needs_clearing: false, lost_connections })
    }

    /// How many connections to this server were lost so far.
    pub(super) fn lost_connections(&self) -> u64 {
        self.lost_connections.load(Relaxed)
    }
    /// Records a lost connection of the tenant, so that all idle connections to this server are pinged before their
    /// next use. If the tenants lose connections one right after the other, the server has probably restarted: fewer
    /// connections are then opened at the same time. One tenant alone could end its own sessions as often as it likes.
    pub(super) fn record_lost_connection(&self, tenant: TenantId) {
        self.lost_connections.fetch_add(1, Relaxed);
        let now = coarse_time();
        let previous = self.last_lost.lock().unwrap_or_else(PoisonError::into_inner).replace((tenant, now));
        if previous.is_some_and(|(other, at)| other != tenant && now.saturating_sub(at) < RESTART_WINDOW)
            && let Some(server) = self.server.upgrade()
        {
            server.connect_permits.reset();
        }
    }
    /// Whether the connection must be pinged before it is used at `now`.
    pub(super) fn needs_ping(&self, conn: &Conn, now: Duration) -> bool {
        conn.lost_connections != self.lost_connections()
            || now.saturating_sub(conn.checked_at) >= self.handover.ping_after
    }
    /// Whether the connection may be used at `now` as it is.
    pub(super) fn is_usable(&self, conn: &Conn, now: Duration) -> bool {
        conn.held.is_some() && !self.needs_ping(conn, now) && !conn.expiry.is_too_old(now)
    }

    /// An sqlx pool for one connection. Opens nothing.
    fn new_sqlx_pool(&self, id: u64, target: &Target, slot: SlotId, limit: Duration) -> PgPool {
        let (server, handover) = (self.server.clone(), self.handover);
        PgPoolOptions::new()
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
            .connect_lazy_with(target.options.clone())
    }
}

impl Opener for PgOpener {
    type Target = Arc<Target>;
    /// Boxed, because each checkout moves it.
    type Conn = Box<Conn>;

    async fn open(&self, target: &Arc<Target>, slot: SlotId, limit: Duration) -> Result<Box<Conn>, sqlx::Error> {
        let began = Instant::now();
        let id = self.next_id.fetch_add(1, Relaxed);
        let pool = self.new_sqlx_pool(id, target, slot, limit);
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
        Ok(self.new_conn(id, target.clone(), pool, held))
    }

    async fn close(&self, mut conn: Box<Conn>, why: &'static str) {
        tracing::debug!(tenant = %conn.target.tenant, why, "a connection is closed");
        if let Some(held) = conn.held.take() {
            let _ = held.close().await;
        }
        conn.pool.close().await;
    }

    fn is_gone(conn: &Box<Conn>) -> bool {
        conn.pool.size() == 0
    }

    fn take_back(server: &Arc<PgServer>, slot: SlotId, conn: Box<Conn>) {
        if !conn.needs_clearing {
            server.give_back(slot, conn);
        } else if Handle::try_current().is_ok() {
            // In a task of its own, sqlx waits for unread answers, runs the `after_release` hook, and pings.
            drop(server.lend(slot, conn));
        } else {
            // Without a runtime sqlx cannot run that task. Dropping the connection closes it.
            drop(conn);
            server.lock_scheduler().abandon(slot);
        }
    }
}
