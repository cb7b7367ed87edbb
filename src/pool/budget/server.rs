//! The connection pool of one server: it waits with a deadline, and opens and closes connections.
//!
//! [`SlotScheduler`] decides which caller gets which slot; [`ServerPool`] does the waiting and the I/O. The real opener
//! is `PgOpener`; tests use a fake one through [`Opener`].
//!
//! Invariants: every slot, queue entry and connect permit is owned by a guard ([`Lease`], [`Waiting`], [`Closing`],
//! `OwnedSemaphorePermit`), so a future that is dropped at any await returns what it had. A caller that was granted
//! a slot without a connect permit does not wait for one.
use super::scheduler::{Grant, Key, SlotAnswer, SlotId, SlotScheduler, WaiterId};
use super::stats::PoolStats;
use crate::pool::AcquireError;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug_span};

/// Maximum time for closing a connection. Without it, a server that does not answer would keep the slot occupied.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// How long a caller that holds a slot waits for a connect permit.
const REOPEN_PATIENCE: Duration = Duration::from_millis(50);
/// How often a waiting caller looks for lent connections that were detached or closed, and frees their slots.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// Opens and closes connections. A trait so that tests can run the pool without a server.
pub(crate) trait Opener: Send + Sync + 'static {
    /// What a tenant's connections are opened with.
    type Target: Send + Sync + 'static;
    type Conn: Send + 'static;
    /// Opens a connection within `limit`. The pool cancels the future after `limit` in any case.
    fn open(
        &self, target: &Self::Target, slot: SlotId, limit: Duration,
    ) -> impl Future<Output = Result<Self::Conn, sqlx::Error>> + Send;
    /// Closes a connection; `why` is for the log. The pool cancels the future after [`CLOSE_LIMIT`].
    fn close(&self, conn: Self::Conn, why: &'static str) -> impl Future<Output = ()> + Send;
    /// Whether a lent connection was closed or detached, so that it will never be returned.
    fn is_gone(conn: &Self::Conn) -> bool;
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolLimits {
    /// Maximum connections to the server.
    pub(crate) budget: u32,
    /// Maximum connections that are being opened at the same time.
    pub(crate) connect_permits: usize,
    /// Time limit for one acquire: waiting, closing another tenant's connection, and opening.
    pub(crate) acquire: Duration,
}

pub(crate) struct ServerPool<O: Opener> {
    pub(super) opener: O,
    scheduler: Mutex<SlotScheduler<O::Conn>>,
    connect_permits: Arc<Semaphore>,
    acquire: Duration,
    /// Moving average of the time that opening a connection takes, in µs.
    connect_time: AtomicU64,
    tasks: TaskTracker,
    pub(super) counters: Counters,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) connects: AtomicU64,
    pub(super) timeouts: AtomicU64,
}

/// A slot that a caller owns. Dropping it returns the slot, and the connection in it if there is a usable one.
pub(crate) struct Lease<O: Opener> {
    server: Arc<ServerPool<O>>,
    pub(super) slot: SlotId,
    pub(super) conn: Option<O::Conn>,
    /// The slot is empty or contains another tenant's connection: the caller must open a connection before use.
    to_open: bool,
}

/// A caller's wait for a connection. Dropping it removes the waiter; a grant that arrived in the meantime goes to the
/// next waiter.
struct Waiting<O: Opener> {
    server: Arc<ServerPool<O>>,
    key: Key,
    id: WaiterId,
    grant: oneshot::Receiver<Grant<O::Conn>>,
    began: Instant,
    until: Instant,
}

/// Frees a slot when it is dropped, so that the slot is freed even if the task that closes its connection is cancelled.
struct Closing<O: Opener> {
    server: Arc<ServerPool<O>>,
    slot: SlotId,
}

/// A slot and, if the waiter had one, its connect permit. `None`: the tenant's share is retired.
type Granted<O> = Option<(Lease<O>, Option<OwnedSemaphorePermit>)>;

impl<O: Opener> ServerPool<O> {
    pub(crate) fn new(opener: O, limits: PoolLimits) -> Self {
        Self {
            opener,
            scheduler: Mutex::new(SlotScheduler::new(limits.budget as usize)),
            connect_permits: Arc::new(Semaphore::new(limits.connect_permits.max(1))),
            acquire: limits.acquire,
            connect_time: AtomicU64::new(2_000),
            tasks: TaskTracker::new(),
            counters: Counters::default(),
        }
    }

    pub(super) fn lock_scheduler(&self) -> MutexGuard<'_, SlotScheduler<O::Conn>> {
        // A poisoned lock is safe to use: no code panics between two related changes under this lock.
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an idle, usable connection of the tenant without waiting. No guard returns it: the caller must.
    pub(super) fn checkout(&self, key: Key, is_usable: impl FnOnce(&O::Conn) -> bool) -> Option<(SlotId, O::Conn)> {
        self.lock_scheduler().checkout(key, is_usable)
    }

    /// Takes an idle connection, waits for one to be returned, or opens one. `None`: the tenant's share is retired.
    ///
    /// An idle connection is returned without a ping; the caller decides whether it needs one.
    ///
    /// # Cancel safety
    /// Dropping the future removes the waiter, or returns the slot that it has.
    pub(crate) async fn acquire(
        self: &Arc<Self>, key: Key, target: &O::Target,
    ) -> Result<Option<Lease<O>>, sqlx::Error> {
        if let Some((slot, conn)) = self.checkout(key, |_| true) {
            return Ok(Some(self.new_lease(slot, Some(conn))));
        }
        let began = Instant::now();
        let until = began + self.acquire;
        let (to, grant) = oneshot::channel();
        let Some((id, first)) = self.lock_scheduler().add_waiter(key, began.into_std(), to) else { return Ok(None) };
        let waiting = Waiting { server: self.clone(), key, id, grant, began, until };
        match waiting.wait(first).instrument(debug_span!("wait for the budget")).await {
            Ok(Some((lease, permit))) if lease.to_open => {
                self.open_in_slot(lease, target, permit, began, until).await.map(Some)
            }
            Ok(granted) => Ok(granted.map(|(lease, _)| lease)),
            Err(error) => {
                self.counters.timeouts.fetch_add(1, Relaxed);
                Err(error.into())
            }
        }
    }

    /// Opens a connection in a slot that the caller owns. Another tenant's connection in the slot is closed first;
    /// otherwise the slot would cover two connections.
    ///
    /// This function never waits for a connect permit, since permit holders may be waiting for slots. A caller without
    /// a permit takes one if one is free, and otherwise opens without one.
    async fn open_in_slot(
        self: &Arc<Self>, mut lease: Lease<O>, target: &O::Target, permit: Option<OwnedSemaphorePermit>,
        began: Instant, until: Instant,
    ) -> Result<Lease<O>, sqlx::Error> {
        let _permit = permit.or_else(|| self.connect_permits.clone().try_acquire_owned().ok());
        if let Some(old) = lease.conn.take() {
            // If the caller drops the future here, the old connection is dropped too, which closes its socket.
            let _ = timeout(CLOSE_LIMIT, self.opener.close(old, "another tenant needs its slot")).await;
        }
        let opening = Instant::now();
        let limit = until.saturating_duration_since(opening);
        let open = self.opener.open(target, lease.slot, limit).instrument(debug_span!("open a connection"));
        match timeout(limit, open).await {
            Ok(Ok(conn)) => {
                lease.conn = Some(conn);
                lease.to_open = false;
                self.counters.connects.fetch_add(1, Relaxed);
                let took = opening.elapsed().as_micros() as u64;
                self.connect_time.store((self.connect_time.load(Relaxed) * 7 + took) / 8, Relaxed);
                self.keep_slots_free();
                Ok(lease)
            }
            Ok(Err(sqlx::Error::PoolTimedOut)) | Err(_) => {
                self.counters.timeouts.fetch_add(1, Relaxed);
                Err(AcquireError::ConnectTimeout { waited: began.elapsed() }.into())
            }
            Ok(Err(error)) => Err(error),
        }
    }

    /// Drops the broken connection in the slot and opens another one for the same tenant. It keeps the slot, so it waits
    /// for a connect permit for [`REOPEN_PATIENCE`] only and then opens without one: every permit may be held by a caller
    /// that waits for a slot, and after a restart of the server every slot may have a broken connection.
    pub(super) async fn reopen(
        self: &Arc<Self>, mut lease: Lease<O>, target: &O::Target,
    ) -> Result<Lease<O>, sqlx::Error> {
        (lease.conn, lease.to_open) = (None, true);
        let began = Instant::now();
        let until = began + self.acquire;
        let permit = timeout(REOPEN_PATIENCE, self.connect_permits.clone().acquire_owned()).await;
        let permit = permit.ok().and_then(Result::ok);
        self.open_in_slot(lease, target, permit, began, until).await
    }

    pub(super) fn new_lease(self: &Arc<Self>, slot: SlotId, conn: Option<O::Conn>) -> Lease<O> {
        Lease { server: self.clone(), slot, conn, to_open: false }
    }

    /// Returns a usable connection: to a waiter, or to the tenant's idle ones.
    pub(super) fn give_back(self: &Arc<Self>, slot: SlotId, conn: O::Conn) {
        let surplus = self.lock_scheduler().release(slot, conn, std::time::Instant::now);
        if let Some(conn) = surplus {
            self.spawn_close(slot, conn, "its tenant was retired, or the budget has shrunk");
        }
    }

    /// Closes a connection in a task of its own, and then frees its slot.
    fn spawn_close(self: &Arc<Self>, slot: SlotId, conn: O::Conn, why: &'static str) {
        let closing = Closing { server: self.clone(), slot };
        // Without a runtime (when the program ends) no task can run: dropping the connection closes its socket.
        let Ok(runtime) = Handle::try_current() else { return };
        let close = async move {
            let _ = timeout(CLOSE_LIMIT, closing.server.opener.close(conn, why)).await;
        };
        self.tasks.spawn_on(close, &runtime);
    }

    /// Closes a connection that is in use and must not be used again, and then frees its slot.
    pub(super) fn discard(self: &Arc<Self>, slot: SlotId, conn: O::Conn, why: &'static str) {
        let mut scheduler = self.lock_scheduler();
        scheduler.vacate(slot);
        scheduler.mark_closing(slot);
        drop(scheduler);
        self.spawn_close(slot, conn, why);
    }

    /// Closes one idle connection if few slots are free, so that the next caller that must open a connection does not
    /// first wait for another tenant's to close. Keeps a sixteenth of the slots free, at most three.
    fn keep_slots_free(self: &Arc<Self>) {
        let evicted = {
            let mut scheduler = self.lock_scheduler();
            let reserve = (scheduler.limit() / 16).min(3);
            scheduler.evict_for_reserve(reserve)
        };
        if let Some((slot, conn)) = evicted {
            self.spawn_close(slot, conn, "its slot is kept free for the next caller");
        }
    }

    /// Frees the slots of lent connections that were closed or detached.
    pub(super) fn sweep(&self) {
        let swept = self.lock_scheduler().sweep(O::is_gone);
        // Dropped after the lock is released.
        drop(swept);
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
        let surplus = self.lock_scheduler().resize(budget as usize);
        surplus.into_iter().for_each(|(slot, conn)| self.spawn_close(slot, conn, "the budget has shrunk"));
    }

    /// Stops serving all tenants: idle connections are closed now, connections in use when they are returned.
    pub(crate) fn close(self: &Arc<Self>) {
        let idle = self.lock_scheduler().close();
        idle.into_iter().for_each(|(slot, conn)| self.spawn_close(slot, conn, "the resolver was closed"));
    }
    /// After [`close`](Self::close): waits until no connection is open. Has no deadline of its own.
    pub(crate) async fn wait_until_closed(&self) {
        loop {
            self.sweep();
            if self.lock_scheduler().occupied() == 0 {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
    /// Waits until the tasks that close connections have ended.
    pub(crate) async fn wait_for_tasks(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(crate) fn stats(&self) -> PoolStats {
        let scheduler = self.lock_scheduler();
        PoolStats {
            budget: scheduler.limit() as u32,
            open: scheduler.occupied() as u32,
            idle: scheduler.idle() as u32,
            waiting: scheduler.waiting() as u32,
            checkouts: scheduler.counts.checkouts,
            hits: scheduler.counts.hits,
            steals: scheduler.counts.steals,
            connects: self.counters.connects.load(Relaxed),
            timeouts: self.counters.timeouts.load(Relaxed),
        }
    }
}

impl<O: Opener> Waiting<O> {
    /// Waits for a grant until the deadline. `first`: no connection of the tenant is open or on its way, so this waiter
    /// asks for a new one at once. `None`: the tenant's share was retired in the meantime.
    async fn wait(mut self, first: bool) -> Result<Granted<O>, AcquireError> {
        let needs_connection = first || {
            // Wait first for as long as opening a connection takes: a returned connection is cheaper than a new one.
            let pause = Duration::from_micros(self.server.connect_time.load(Relaxed));
            if let Ok(grant) = timeout_at(self.until.min(self.began + pause), &mut self.grant).await {
                return Ok(self.accept(grant.ok(), None));
            }
            self.server.lock_scheduler().mark_needs_connection(self.key, self.id)
        };
        if !needs_connection {
            return self.wait_for_grant(None).await;
        }
        let connect_permits = self.server.connect_permits.clone().acquire_owned();
        tokio::pin!(connect_permits);
        let permit = loop {
            tokio::select! {
                biased;
                grant = &mut self.grant => return Ok(self.accept(grant.ok(), None)),
                permit = &mut connect_permits => break permit.ok(),
                () = sleep_until(self.until) => return Err(self.permit_timeout()),
                () = sleep(SWEEP_INTERVAL) => self.server.sweep(),
            }
        };
        let answer = self.server.lock_scheduler().request_slot(self.key, self.id, Instant::now().into_std());
        match answer {
            SlotAnswer::Slot(slot, old) => Ok(self.accept(Some(Grant::Slot(slot, old)), permit)),
            SlotAnswer::Queued | SlotAnswer::AwaitGrant => self.wait_for_grant(permit).await,
        }
    }

    async fn wait_for_grant(mut self, permit: Option<OwnedSemaphorePermit>) -> Result<Granted<O>, AcquireError> {
        loop {
            tokio::select! {
                biased;
                grant = &mut self.grant => return Ok(self.accept(grant.ok(), permit)),
                () = sleep_until(self.until) => {
                    return Err(AcquireError::PoolExhausted { waited: self.began.elapsed() });
                }
                () = sleep(SWEEP_INTERVAL) => self.server.sweep(),
            }
        }
    }

    /// Puts a grant into a guard. `None`: the sender was dropped, because the share is retired.
    fn accept(&self, grant: Option<Grant<O::Conn>>, permit: Option<OwnedSemaphorePermit>) -> Granted<O> {
        let (slot, conn, to_open) = match grant? {
            Grant::Conn(slot, conn) => (slot, Some(conn), false),
            Grant::Slot(slot, old) => (slot, old, true),
        };
        Some((Lease { server: self.server.clone(), slot, conn, to_open }, permit))
    }

    /// The error after a timeout without a connect permit: [`AcquireError::ConnectQueue`] if the server has a slot for
    /// one more connection, else [`AcquireError::PoolExhausted`].
    fn permit_timeout(&self) -> AcquireError {
        let waited = self.began.elapsed();
        match self.server.lock_scheduler().has_room() {
            true => AcquireError::ConnectQueue { waited },
            false => AcquireError::PoolExhausted { waited },
        }
    }
}

impl<O: Opener> Drop for Waiting<O> {
    fn drop(&mut self) {
        self.server.lock_scheduler().remove_waiter(self.key, self.id);
        // The scheduler sends no grant after this. One that it sent before is returned here.
        self.grant.close();
        if let Ok(grant) = self.grant.try_recv() {
            drop(self.accept(Some(grant), None));
        }
    }
}

impl<O: Opener> Drop for Lease<O> {
    fn drop(&mut self) {
        match (self.conn.take(), self.to_open) {
            (Some(conn), false) => self.server.give_back(self.slot, conn),
            (Some(old), true) => self.server.discard(self.slot, old, "another tenant needed its slot"),
            (None, true) => self.server.lock_scheduler().abandon(self.slot),
            (None, false) => {}
        }
    }
}

impl<O: Opener> Drop for Closing<O> {
    fn drop(&mut self) {
        self.server.lock_scheduler().free_slot(self.slot);
    }
}
