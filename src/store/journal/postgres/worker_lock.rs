//! The lock that shows other nodes that this process lives: an advisory lock in the landlord's database.
//!
//! [`PgJournal`](super::PgJournal) stores the lock's key with each operation that a worker of this process begins or
//! claims. When the process dies, its session ends and PostgreSQL releases the lock. Another node then claims the
//! operation at once, under a new epoch, and does not wait until the lease expires.
//!
//! Invariants:
//! - A key is stored only after its lock was taken. An operation without a key is protected by its lease alone.
//! - The lock only shortens the wait for a lease; the epoch alone decides which worker can write. If the session breaks
//!   while the process lives, another node may take over, and this process's worker is fenced.
//! - One task owns the session. It ends when [`WorkerLock::close`] is called or the last handle is dropped.
use crate::rt;
use session::LockSession;
use sqlx::PgPool;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

mod session;
pub(super) use session::lock_class;

/// How long an operation waits for the first lock of its process. A login over TLS takes up to a tenth of a second. An
/// operation that begins without a lock is protected by its lease alone.
const FIRST_LOCK: Duration = Duration::from_secs(2);
/// Time limit for opening the session. It covers the wait for the lock of this process's broken session, which the
/// server ends after 15 s.
const OPEN: Duration = Duration::from_secs(30);
/// Interval of the checks that the session still exists, and the time limit of each.
const CHECK: Duration = Duration::from_secs(5);
/// Pause before the next attempt to open the session.
const RETRY: Duration = Duration::from_secs(1);
/// Pause before the next attempt if the landlord is behind a transaction pooler. The configuration of a pooler changes
/// only with a deployment.
const POOLER_RETRY: Duration = Duration::from_secs(300);

/// The lock of one process. A clone is a handle to the same lock.
#[derive(Clone, Debug)]
pub(crate) struct WorkerLock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    landlord: PgPool,
    state: Arc<watch::Sender<State>>,
    stop: CancellationToken,
    tasks: TaskTracker,
    _stop_on_drop: DropGuard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No task owns a session.
    Idle,
    /// The task opens its first session.
    Opening,
    /// The task's session has the lock with this key.
    Held(i32),
    /// The session is lost or could not be opened. The task tries again.
    Unavailable,
}

impl WorkerLock {
    /// Creates the handle. The session opens at the first call of [`start`](Self::start) or [`key`](Self::key), with
    /// the connection options that the pool has then. It is not a connection of the pool.
    pub(crate) fn new(landlord: PgPool) -> Self {
        let (state, stop) = (Arc::new(watch::Sender::new(State::Idle)), CancellationToken::new());
        let _stop_on_drop = stop.clone().drop_guard();
        Self(Arc::new(Shared { landlord, state, stop, tasks: TaskTracker::new(), _stop_on_drop }))
    }
    /// Starts the task that opens the session and takes the lock, unless it runs already or the lock is closed.
    pub(crate) fn start(&self) {
        let begin =
            |state: &mut State| *state == State::Idle && std::mem::replace(state, State::Opening) == State::Idle;
        if !self.0.stop.is_cancelled() && self.0.state.send_if_modified(begin) {
            let task = LockTask { landlord: self.0.landlord.clone(), state: self.0.state.clone(), key: None };
            self.0.tasks.spawn(task.run(self.0.stop.clone()));
        }
    }
    /// The key of the lock; `None` if this process does not hold it. The first call opens the session and waits for it,
    /// at most 2 s.
    pub(crate) async fn key(&self) -> Option<i32> {
        self.start();
        let mut state = self.0.state.subscribe();
        let opened = timeout(FIRST_LOCK, state.wait_for(|state| *state != State::Opening)).await;
        match opened.ok()?.as_deref() {
            Ok(State::Held(key)) => Some(*key),
            _ => None,
        }
    }
    /// Releases the lock and ends the task. The lock cannot be started again. Call it when no worker of this process
    /// drives an operation any more.
    pub(crate) async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

/// The task that owns the session.
struct LockTask {
    landlord: PgPool,
    state: Arc<watch::Sender<State>>,
    /// The key of the last session. The next session takes it again, because operations are stored with it.
    key: Option<i32>,
}

impl LockTask {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let pause = self.open_and_hold(&stop).await;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Takes the lock and keeps it until the session is lost or `stop` is cancelled. Returns the pause before the next
    /// attempt.
    async fn open_and_hold(&mut self, stop: &CancellationToken) -> Duration {
        let open = timeout(OPEN, rt::poll_batched(LockSession::open(&self.landlord, self.key)));
        let opened = tokio::select! {
            () = stop.cancelled() => return Duration::ZERO,
            opened = open => opened,
        };
        match opened {
            Ok(Ok(Some(mut session))) => {
                self.key = Some(session.key());
                self.state.send_replace(State::Held(session.key()));
                hold(&mut session, stop).await;
                if stop.is_cancelled() {
                    session.close().await;
                    return Duration::ZERO;
                }
                tracing::debug!("the session with this node's lock in the landlord ended; opening another one");
            }
            Ok(Ok(None)) => {
                self.state.send_replace(State::Unavailable);
                tracing::info!(
                    "the landlord is behind a transaction pooler, so this node holds no lock there; if its process \
                     dies, other nodes take its operations over when their leases expire"
                );
                return POOLER_RETRY;
            }
            Ok(Err(error)) => tracing::debug!(%error, "cannot take this node's lock in the landlord; trying again"),
            Err(_) => tracing::debug!("the landlord did not answer in time; trying again to take this node's lock"),
        }
        self.state.send_replace(State::Unavailable);
        RETRY
    }
}

/// Returns when the session is lost, or when `stop` is cancelled.
async fn hold(session: &mut LockSession, stop: &CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(CHECK) => {}
        }
        match timeout(CHECK, session.is_held()).await {
            Ok(Ok(true)) => {}
            _ => return,
        }
    }
}

/// A task that ends, also with its runtime, leaves the lock to be started again by the next operation.
impl Drop for LockTask {
    fn drop(&mut self) {
        self.state.send_replace(State::Idle);
    }
}

#[cfg(test)]
mod tests;
