//! How a server pool takes connections back and closes them.
//!
//! Connections are closed in tasks of the pool, so that the caller that returns one does not wait. Invariant: a slot is
//! freed only after its connection is closed, so that the limit holds at all times.
use super::scheduler::{Released, SlotId};
use super::server::{Opener, ServerPool};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

/// Maximum time for closing a connection. Without it, a server that does not answer would keep the slot occupied.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Frees a slot when it is dropped, so that the slot is freed even if the task that closes its connection is cancelled.
struct Closing<O: Opener> {
    server: Arc<ServerPool<O>>,
    slot: SlotId,
}

impl<O: Opener> Drop for Closing<O> {
    fn drop(&mut self) {
        self.server.lock_scheduler().free_slot(self.slot);
    }
}

impl<O: Opener> ServerPool<O> {
    /// Returns a usable connection: to a waiter, or to the tenant's idle ones.
    pub(super) fn give_back(self: &Arc<Self>, slot: SlotId, conn: O::Conn) {
        let released = self.lock_scheduler().release(slot, conn, std::time::Instant::now);
        if let Released::MustClose(conn) = released {
            self.spawn_close(slot, conn, "its tenant was retired, or the budget has shrunk");
        }
    }

    /// Closes a connection within [`CLOSE_LIMIT`].
    pub(super) async fn close_conn(&self, conn: O::Conn, why: &'static str) {
        let _ = timeout(CLOSE_LIMIT, self.opener.close(conn, why)).await;
    }

    /// Closes a connection in a task of its own, and then frees its slot.
    pub(super) fn spawn_close(self: &Arc<Self>, slot: SlotId, conn: O::Conn, why: &'static str) {
        let closing = Closing { server: self.clone(), slot };
        // Without a runtime (when the program ends) no task can run: dropping the connection closes its socket.
        let Ok(runtime) = Handle::try_current() else { return };
        let close = async move { closing.server.close_conn(conn, why).await };
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
    pub(super) fn keep_slots_free(self: &Arc<Self>) {
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
}
