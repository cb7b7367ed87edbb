//! One server's budget at work: waiting with a deadline, opening, closing. Whatever future is dropped gives back what it
//! had: each holds it in a guard.
use super::scheduler::{Grant, Key, SlotId, SlotScheduler, Turn, WaiterId};
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

/// Connections that are being closed may take so long; a server that does not answer does not hold its slot for longer.
const CLOSING: Duration = Duration::from_secs(5);
/// How often whoever waits looks for connections that were detached or closed while they were handed out.
const SWEEP: Duration = Duration::from_millis(100);

/// How connections are made: apart, so that the waiting can be tested without a server.
pub(crate) trait Opener: Send + Sync + 'static {
    /// What a tenant's connections are opened with.
    type Target: Send + Sync + 'static;
    type Conn: Send + 'static;
    fn open(
        &self, target: &Self::Target, slot: SlotId, limit: Duration,
    ) -> impl Future<Output = Result<Self::Conn, sqlx::Error>> + Send;
    fn close(&self, conn: Self::Conn, why: &'static str) -> impl Future<Output = ()> + Send;
    /// Whether a connection that was lent is gone without a word.
    fn is_gone(conn: &Self::Conn) -> bool;
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections in all.
    pub(crate) budget: u32,
    /// That are being opened at once.
    pub(crate) connect_permits: usize,
    /// For one acquire, with everything that it takes.
    pub(crate) acquire: Duration,
}

pub(crate) struct ServerPool<O: Opener> {
    pub(super) opener: O,
    scheduler: Mutex<SlotScheduler<O::Conn>>,
    connect_permits: Arc<Semaphore>,
    acquire: Duration,
    /// What opening takes on average, in µs.
    connect: AtomicU64,
    tasks: TaskTracker,
    pub(super) counters: Counters,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) connects: AtomicU64,
    pub(super) timeouts: AtomicU64,
}

/// A slot that is somebody's. Dropped, it is given back as it is.
pub(crate) struct Lease<O: Opener> {
    server: Arc<ServerPool<O>>,
    pub(super) slot: SlotId,
    pub(super) conn: Option<O::Conn>,
    /// What is in it is another tenant's, or nothing.
    to_open: bool,
}

/// A place in the queue. Dropped, it is left, and what came at that moment goes to the next one.
struct Waiting<O: Opener> {
    server: Arc<ServerPool<O>>,
    key: Key,
    id: WaiterId,
    grant: oneshot::Receiver<Grant<O::Conn>>,
    began: Instant,
    until: Instant,
}

/// Frees a slot, also when the task that closes its connection is not run to its end.
struct Closing<O: Opener> {
    server: Arc<ServerPool<O>>,
    slot: SlotId,
}

type Got<O> = Option<(Lease<O>, Option<OwnedSemaphorePermit>)>;

impl<O: Opener> ServerPool<O> {
    pub(crate) fn new(opener: O, limits: Limits) -> Self {
        Self {
            opener,
            scheduler: Mutex::new(SlotScheduler::new(limits.budget as usize)),
            connect_permits: Arc::new(Semaphore::new(limits.connect_permits.max(1))),
            acquire: limits.acquire,
            connect: AtomicU64::new(2_000),
            tasks: TaskTracker::new(),
            counters: Counters::default(),
        }
    }

    pub(super) fn scheduler(&self) -> MutexGuard<'_, SlotScheduler<O::Conn>> {
        // Nothing under this lock panics half-way.
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle connection of the tenant's, now, and with nothing that gives it back.
    pub(super) fn checkout(&self, key: Key, fit: impl FnOnce(&O::Conn) -> bool) -> Option<(SlotId, O::Conn)> {
        self.scheduler().checkout(key, fit)
    }

    /// One that is idle, or the next one; opened if need be. `None`: the tenant is retired.
    ///
    /// # Cancel safety
    /// Dropping the future gives up its place, or what it has.
    pub(crate) async fn acquire(
        self: &Arc<Self>, key: Key, target: &O::Target,
    ) -> Result<Option<Lease<O>>, sqlx::Error> {
        if let Some((slot, conn)) = self.checkout(key, |_| true) {
            return Ok(Some(self.lease(slot, Some(conn))));
        }
        let began = Instant::now();
        let until = began + self.acquire;
        let (to, grant) = oneshot::channel();
        let Some((id, first)) = self.scheduler().wait(key, began.into_std(), to) else { return Ok(None) };
        let waiting = Waiting { server: self.clone(), key, id, grant, began, until };
        match waiting.get(first).instrument(debug_span!("wait for the budget")).await {
            Ok(Some((lease, permit))) if lease.to_open => {
                self.open_in(lease, target, permit, began, until).await.map(Some)
            }
            Ok(got) => Ok(got.map(|(lease, _)| lease)),
            Err(late) => {
                self.counters.timeouts.fetch_add(1, Relaxed);
                Err(late.into())
            }
        }
    }

    /// Opens in a slot that is ours. The old connection goes first: two in one slot would be one too many.
    ///
    /// Who was given a slot without having passed the gate does not wait for it: who stands there waits for slots.
    async fn open_in(
        self: &Arc<Self>, mut lease: Lease<O>, target: &O::Target, permit: Option<OwnedSemaphorePermit>,
        began: Instant, until: Instant,
    ) -> Result<Lease<O>, sqlx::Error> {
        let _permit = permit.or_else(|| self.connect_permits.clone().try_acquire_owned().ok());
        if let Some(old) = lease.conn.take() {
            // A future that is dropped here drops the old connection with it: its socket is closed either way.
            let _ = timeout(CLOSING, self.opener.close(old, "another tenant needs its place")).await;
        }
        let tried = Instant::now();
        let limit = until.saturating_duration_since(tried);
        let open = self.opener.open(target, lease.slot, limit).instrument(debug_span!("open a connection"));
        match timeout(limit, open).await {
            Ok(Ok(conn)) => {
                lease.conn = Some(conn);
                lease.to_open = false;
                self.counters.connects.fetch_add(1, Relaxed);
                let took = tried.elapsed().as_micros() as u64;
                self.connect.store((self.connect.load(Relaxed) * 7 + took) / 8, Relaxed);
                self.keep_spare();
                Ok(lease)
            }
            Ok(Err(sqlx::Error::PoolTimedOut)) | Err(_) => {
                self.counters.timeouts.fetch_add(1, Relaxed);
                Err(AcquireError::ConnectTimeout { waited: began.elapsed() }.into())
            }
            Ok(Err(error)) => Err(error),
        }
    }

    /// The connection in it is broken: another one of the same tenant.
    pub(super) async fn reopen(
        self: &Arc<Self>, mut lease: Lease<O>, target: &O::Target,
    ) -> Result<Lease<O>, sqlx::Error> {
        (lease.conn, lease.to_open) = (None, true);
        let began = Instant::now();
        let until = began + self.acquire;
        let permit = timeout_at(until, self.connect_permits.clone().acquire_owned()).await.ok().and_then(Result::ok);
        self.open_in(lease, target, permit, began, until).await
    }

    pub(super) fn lease(self: &Arc<Self>, slot: SlotId, conn: Option<O::Conn>) -> Lease<O> {
        Lease { server: self.clone(), slot, conn, to_open: false }
    }

    /// Gives it to whoever is next.
    pub(super) fn give_back(self: &Arc<Self>, slot: SlotId, conn: O::Conn) {
        let surplus = self.scheduler().release(slot, conn, std::time::Instant::now);
        if let Some(conn) = surplus {
            self.close_one(slot, conn, "its tenant was retired, or the budget has shrunk");
        }
    }

    /// Closes a connection, and then frees its slot.
    fn close_one(self: &Arc<Self>, slot: SlotId, conn: O::Conn, why: &'static str) {
        let closing = Closing { server: self.clone(), slot };
        // Without a runtime, at the end of a program, it is cut.
        let Ok(runtime) = Handle::try_current() else { return };
        let close = async move {
            let _ = timeout(CLOSING, closing.server.opener.close(conn, why)).await;
        };
        self.tasks.spawn_on(close, &runtime);
    }

    /// The same for a connection that is in use and must not be used again.
    pub(super) fn discard(self: &Arc<Self>, slot: SlotId, conn: O::Conn, why: &'static str) {
        let mut scheduler = self.scheduler();
        scheduler.vacate(slot);
        scheduler.closes(slot);
        drop(scheduler);
        self.close_one(slot, conn, why);
    }

    /// A few slots are kept free ahead of need.
    fn keep_spare(self: &Arc<Self>) {
        let spare = {
            let mut scheduler = self.scheduler();
            let reserve = (scheduler.limit() / 16).min(3);
            scheduler.spare(reserve)
        };
        if let Some((slot, conn)) = spare {
            self.close_one(slot, conn, "its place is kept free for whoever comes next");
        }
    }

    /// Connections that were lent and are no more.
    pub(super) fn sweep(&self) {
        let gone = self.scheduler().sweep(O::is_gone);
        drop(gone);
    }

    pub(crate) fn join(&self, cap: u32) -> Key {
        self.scheduler().join(cap.max(1) as usize)
    }
    pub(crate) fn retire(self: &Arc<Self>, key: Key) {
        let idle = self.scheduler().retire(key);
        idle.into_iter()
            .for_each(|(slot, conn)| self.close_one(slot, conn, "its tenant was forgotten, changed or closed"));
    }
    pub(crate) fn leave(self: &Arc<Self>, key: Key) {
        self.retire(key);
        self.scheduler().leave(key);
    }
    /// From now on at most so many, as soon as what is out comes back.
    pub(crate) fn resize(self: &Arc<Self>, budget: u32) {
        let surplus = self.scheduler().resize(budget as usize);
        surplus.into_iter().for_each(|(slot, conn)| self.close_one(slot, conn, "the budget has shrunk"));
    }

    /// Nothing is given out any more; what is idle is closed, what is out when it comes back.
    pub(crate) fn close(self: &Arc<Self>) {
        let idle = self.scheduler().close();
        idle.into_iter().for_each(|(slot, conn)| self.close_one(slot, conn, "the resolver was closed"));
    }
    /// After [`close`](Self::close): until nothing is open any more.
    pub(crate) async fn closed(&self) {
        loop {
            self.sweep();
            if self.scheduler().occupied() == 0 {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
    /// Nothing of it runs any more.
    pub(crate) async fn settled(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(crate) fn stats(&self) -> PoolStats {
        let scheduler = self.scheduler();
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
    /// `None`: the tenant was retired meanwhile.
    async fn get(mut self, first: bool) -> Result<Got<O>, AcquireError> {
        let needs_connection = first || {
            // A connection that comes back within the time that opening one takes is cheaper.
            let pause = Duration::from_micros(self.server.connect.load(Relaxed));
            if let Ok(got) = timeout_at(self.until.min(self.began + pause), &mut self.grant).await {
                return Ok(self.granted(got.ok(), None));
            }
            self.server.scheduler().grow(self.key, self.id)
        };
        if !needs_connection {
            return self.until_granted(None).await;
        }
        let connect_permits = self.server.connect_permits.clone().acquire_owned();
        tokio::pin!(connect_permits);
        let permit = loop {
            tokio::select! {
                biased;
                got = &mut self.grant => return Ok(self.granted(got.ok(), None)),
                permit = &mut connect_permits => break permit.ok(),
                () = sleep_until(self.until) => return Err(self.late()),
                () = sleep(SWEEP) => self.server.sweep(),
            }
        };
        let turn = self.server.scheduler().turn(self.key, self.id, Instant::now().into_std());
        match turn {
            Turn::Slot(slot, old) => Ok(self.granted(Some(Grant::Slot(slot, old)), permit)),
            Turn::Queued | Turn::Granted => self.until_granted(permit).await,
        }
    }

    async fn until_granted(mut self, permit: Option<OwnedSemaphorePermit>) -> Result<Got<O>, AcquireError> {
        loop {
            tokio::select! {
                biased;
                got = &mut self.grant => return Ok(self.granted(got.ok(), permit)),
                () = sleep_until(self.until) => return Err(AcquireError::PoolExhausted { waited: self.began.elapsed() }),
                () = sleep(SWEEP) => self.server.sweep(),
            }
        }
    }

    fn granted(&self, grant: Option<Grant<O::Conn>>, permit: Option<OwnedSemaphorePermit>) -> Got<O> {
        let (slot, conn, to_open) = match grant? {
            Grant::Conn(slot, conn) => (slot, Some(conn), false),
            Grant::Slot(slot, old) => (slot, old, true),
        };
        Some((Lease { server: self.server.clone(), slot, conn, to_open }, permit))
    }

    /// At the gate: whether it stands before the server or before the budget.
    fn late(&self) -> AcquireError {
        let waited = self.began.elapsed();
        match self.server.scheduler().has_room() {
            true => AcquireError::ConnectQueue { waited },
            false => AcquireError::PoolExhausted { waited },
        }
    }
}

impl<O: Opener> Drop for Waiting<O> {
    fn drop(&mut self) {
        self.server.scheduler().forget(self.key, self.id);
        // Nothing is sent any more; what was sent before is ours to give back.
        self.grant.close();
        if let Ok(grant) = self.grant.try_recv() {
            drop(self.granted(Some(grant), None));
        }
    }
}

impl<O: Opener> Drop for Lease<O> {
    fn drop(&mut self) {
        match (self.conn.take(), self.to_open) {
            (Some(conn), false) => self.server.give_back(self.slot, conn),
            (Some(old), true) => self.server.discard(self.slot, old, "another tenant needed its place"),
            (None, true) => self.server.scheduler().abandon(self.slot),
            (None, false) => {}
        }
    }
}

impl<O: Opener> Drop for Closing<O> {
    fn drop(&mut self) {
        self.server.scheduler().freed(self.slot);
    }
}
