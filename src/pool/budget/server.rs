//! The connection pool of one server: it waits with a deadline, and opens and closes connections.
//!
//! [`SlotScheduler`] decides which caller gets which slot; [`ServerPool`] does the I/O. Its parts: `acquire` gets a
//! connection for a caller, `waiting` waits for a grant, `guards` own the slot, and `closing` returns and closes
//! connections. The real opener is `PgOpener`; tests use a fake one through [`Opener`].
//!
//! Invariant: every slot, queue entry and connect permit is owned by a guard (`Opening`, `CheckedOut`, `Waiting`,
//! `Closing`, `ConnectPermit`), so a future that is dropped at any await releases what it owned.
use super::connect_permits::{ConnectPermits, PermitLimit};
use super::scheduler::{Key, SlotId, SlotScheduler};
use super::stats::PoolStats;
use crate::pool::AcquireError;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug_span};

/// Opens and closes connections. A trait so that tests can run the pool without a server.
pub(crate) trait Opener: Sized + Send + Sync + 'static {
    /// The connect options of a tenant's connections.
    type Target: Send + Sync + 'static;
    type Conn: Send + 'static;
    /// Opens a connection within `limit`. The pool cancels the future after `limit` in any case.
    fn open(
        &self, target: &Self::Target, slot: SlotId, limit: Duration,
    ) -> impl Future<Output = Result<Self::Conn, sqlx::Error>> + Send;
    /// Closes a connection; `why` is for the log. The pool cancels the future after 5 s.
    fn close(&self, conn: Self::Conn, why: &'static str) -> impl Future<Output = ()> + Send;
    /// Whether a lent connection was closed or detached, so that it will never be returned.
    fn is_gone(conn: &Self::Conn) -> bool;
    /// Takes back a connection whose guard was dropped: gives it back to the pool, or first clears it if its caller may
    /// have left something in it. If that fails, the slot is freed.
    fn take_back(server: &Arc<ServerPool<Self>>, slot: SlotId, conn: Self::Conn);
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolLimits {
    /// Maximum connections to the server.
    pub(crate) budget: u32,
    /// Maximum connections that are being opened at the same time.
    pub(crate) connect_permits: PermitLimit,
    /// Time limit for one acquire: waiting, closing another tenant's connection, and opening.
    pub(crate) acquire: Duration,
}

pub(crate) struct ServerPool<O: Opener> {
    pub(super) opener: O,
    scheduler: Mutex<SlotScheduler<O::Conn>>,
    pub(super) connect_permits: Arc<ConnectPermits>,
    /// Time limit for one acquire.
    pub(super) acquire_limit: Duration,
    /// Moving average of the time that opening a connection takes, in µs.
    pub(super) connect_time: AtomicU64,
    /// The tasks that close connections.
    pub(super) tasks: TaskTracker,
    pub(super) counters: Counters,
}

#[derive(Default)]
pub(super) struct Counters {
    connects: AtomicU64,
    pub(super) timeouts: AtomicU64,
}

/// When an acquire began, and when it times out.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    pub(super) began: Instant,
    pub(super) until: Instant,
}

impl Deadline {
    pub(super) fn after(limit: Duration) -> Self {
        let began = Instant::now();
        Self { began, until: began + limit }
    }
    pub(super) fn waited(&self) -> Duration {
        self.began.elapsed()
    }
}

impl<O: Opener> ServerPool<O> {
    pub(crate) fn new(opener: O, limits: PoolLimits) -> Self {
        Self {
            opener,
            scheduler: Mutex::new(SlotScheduler::new(limits.budget as usize)),
            connect_permits: Arc::new(ConnectPermits::new(limits.connect_permits, limits.budget as usize)),
            acquire_limit: limits.acquire,
            connect_time: AtomicU64::new(2_000),
            tasks: TaskTracker::new(),
            counters: Counters::default(),
        }
    }

    pub(super) fn lock_scheduler(&self) -> MutexGuard<'_, SlotScheduler<O::Conn>> {
        // A poisoned lock is safe to use: no code panics between two related changes under this lock.
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a connection for a slot that the caller owns, and measures how long that takes.
    pub(super) async fn connect(
        &self, target: &O::Target, slot: SlotId, deadline: Deadline,
    ) -> Result<O::Conn, sqlx::Error> {
        let began = Instant::now();
        let limit = deadline.until.saturating_duration_since(began);
        let open = self.opener.open(target, slot, limit).instrument(debug_span!("open a connection"));
        match timeout(limit, open).await {
            Ok(Ok(conn)) => {
                self.counters.connects.fetch_add(1, Relaxed);
                self.connect_permits.record(began.elapsed());
                let took = began.elapsed().as_micros() as u64;
                self.connect_time.store((self.connect_time.load(Relaxed) * 7 + took) / 8, Relaxed);
                Ok(conn)
            }
            Ok(Err(sqlx::Error::PoolTimedOut)) | Err(_) => {
                self.connect_permits.reset();
                self.counters.timeouts.fetch_add(1, Relaxed);
                Err(AcquireError::ConnectTimeout { waited: deadline.waited() }.into())
            }
            Ok(Err(error)) => {
                // A login that has reached its own limit says nothing about the server.
                if matches!(error, sqlx::Error::Io(_)) && AcquireError::find(&error).is_none() {
                    self.connect_permits.reset();
                }
                Err(error)
            }
        }
    }

    /// Adds a tenant that may have at most `cap` connections (at least one).
    pub(crate) fn join(&self, cap: u32) -> Key {
        self.lock_scheduler().join(cap.max(1) as usize)
    }
    /// Stops serving a tenant: its waiters get `None`, its idle connections are closed now, and those in use are closed
    /// when they are returned.
    pub(crate) fn retire(self: &Arc<Self>, key: Key) {
        let idle = self.lock_scheduler().retire(key);
        idle.into_iter()
            .for_each(|(slot, conn)| self.spawn_close(slot, conn, "its tenant was evicted, changed or closed"));
    }
    /// Retires a tenant and releases its key. Called once, when the last handle to the share is dropped.
    pub(crate) fn leave(self: &Arc<Self>, key: Key) {
        self.retire(key);
        self.lock_scheduler().leave(key);
    }
    /// Changes the limit. Surplus idle connections are closed now, surplus connections in use when they are returned.
    pub(crate) fn resize(self: &Arc<Self>, budget: u32) {
        self.connect_permits.resize(budget as usize);
        let surplus = self.lock_scheduler().resize(budget as usize);
        surplus.into_iter().for_each(|(slot, conn)| self.spawn_close(slot, conn, "the budget has shrunk"));
    }

    pub(crate) fn stats(&self) -> PoolStats {
        let scheduler = self.lock_scheduler();
        PoolStats {
            budget: scheduler.limit() as u32,
            open: scheduler.occupied() as u32,
            idle: scheduler.idle() as u32,
            waiting: scheduler.waiting() as u32,
            connect_permits: self.connect_permits.limit() as u32,
            checkouts: scheduler.counts.checkouts,
            hits: scheduler.counts.hits,
            evictions: scheduler.counts.evictions,
            connects: self.counters.connects.load(Relaxed),
            timeouts: self.counters.timeouts.load(Relaxed),
        }
    }
}
