//! How a caller gets a connection of a server pool: an idle one, a returned one, or a new one.
use super::guards::CheckedOut;
use super::scheduler::{Added, Key};
use super::server::{Deadline, Opener, ServerPool};
use super::waiting::{Granted, Waiting};
use std::sync::{Arc, atomic::Ordering::Relaxed};
use tokio::sync::oneshot;
use tracing::{Instrument, debug_span};

/// What an acquire ended with.
pub(crate) enum Acquired<O: Opener> {
    Connection(CheckedOut<'static, O>),
    /// The tenant's share is retired. The caller must resolve the tenant again.
    Retired,
}

impl<O: Opener> ServerPool<O> {
    /// Takes an idle, usable connection of the tenant without waiting.
    #[inline]
    pub(super) fn checkout(
        self: &Arc<Self>, key: Key, is_usable: impl FnOnce(&O::Conn) -> bool,
    ) -> Option<CheckedOut<'_, O>> {
        let found = self.lock_scheduler().checkout(key, is_usable);
        found.map(|(slot, conn)| CheckedOut::borrowing(self, slot, conn))
    }

    /// Takes an idle connection, waits for one to be returned, or opens one.
    ///
    /// An idle connection is returned without a ping; the caller decides whether it needs one.
    ///
    /// # Cancel safety
    /// Dropping the future removes the waiter, or returns the slot that it has.
    pub(crate) async fn acquire(self: &Arc<Self>, key: Key, target: &O::Target) -> Result<Acquired<O>, sqlx::Error> {
        if let Some(idle) = self.checkout(key, |_| true) {
            return Ok(Acquired::Connection(idle.into_owned()));
        }
        let deadline = Deadline::after(self.acquire_limit);
        let (to, grant) = oneshot::channel();
        let added = self.lock_scheduler().add_waiter(key, deadline.began.into_std(), to);
        let Added::Waiter { id, needs_connection } = added else { return Ok(Acquired::Retired) };
        let waiting = Waiting { server: self.clone(), key, id, grant, deadline };
        match waiting.wait(needs_connection).instrument(debug_span!("wait for the budget")).await {
            Ok(Granted::Connection(checked_out)) => Ok(Acquired::Connection(checked_out)),
            Ok(Granted::Slot(opening)) => opening.open(target, deadline).await.map(Acquired::Connection),
            Ok(Granted::Retired) => Ok(Acquired::Retired),
            Err(error) => {
                self.counters.timeouts.fetch_add(1, Relaxed);
                Err(error.into())
            }
        }
    }
}
