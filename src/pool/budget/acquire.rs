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

/// The state of a caller that needs a connection.
pub(crate) enum Entry<O: Opener> {
    /// It has a connection or a slot, or the tenant's share is retired.
    Granted(Granted<O>),
    /// It waits in its tenant's queue.
    Waiting(Waiting<O>),
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

    /// Takes an idle connection, which may need a ping, or joins the tenant's queue.
    pub(super) fn enter(self: &Arc<Self>, key: Key) -> Entry<O> {
        let deadline = Deadline::after(self.acquire_limit);
        let mut scheduler = self.lock_scheduler();
        if let Some((slot, conn)) = scheduler.checkout(key, |_| true) {
            return Entry::Granted(Granted::Connection(CheckedOut::new(self.clone(), slot, conn)));
        }
        let (to, grant) = oneshot::channel();
        match scheduler.add_waiter(key, deadline.began.into_std(), to) {
            Added::Waiter { id, needs_connection } => {
                Entry::Waiting(Waiting::new(self.clone(), key, id, grant, deadline, needs_connection))
            }
            Added::Retired => Entry::Granted(Granted::Retired),
        }
    }

    /// Waits for a connection to be returned, or opens one.
    ///
    /// A connection is returned without a ping; the caller decides whether it needs one.
    ///
    /// # Cancel safety
    /// Dropping the future removes the waiter, or returns the slot that it has.
    pub(crate) async fn acquire(
        self: &Arc<Self>, entry: Entry<O>, target: &O::Target,
    ) -> Result<Acquired<O>, sqlx::Error> {
        let granted = match entry {
            Entry::Granted(granted) => Ok(granted),
            Entry::Waiting(waiting) => waiting.wait().instrument(debug_span!("wait for the budget")).await,
        };
        match granted {
            Ok(Granted::Connection(checked_out)) => Ok(Acquired::Connection(checked_out)),
            Ok(Granted::Slot(opening, deadline)) => opening.open(target, deadline).await.map(Acquired::Connection),
            Ok(Granted::Retired) => Ok(Acquired::Retired),
            Err(error) => {
                self.counters.timeouts.fetch_add(1, Relaxed);
                Err(error.into())
            }
        }
    }
}

impl<O: Opener> Entry<O> {
    /// Waits for a connection that another caller of the tenant returns, at most for as long as opening one takes. The
    /// future is small, in contrast to that of an acquire that may open a connection.
    ///
    /// # Cancel safety
    /// As [`ServerPool::acquire`].
    pub(super) async fn wait_for_returned(self) -> Self {
        match self {
            Self::Waiting(mut waiting) => match waiting.wait_for_returned().await {
                Some(granted) => Self::Granted(granted),
                None => Self::Waiting(waiting),
            },
            granted @ Self::Granted(_) => granted,
        }
    }
}
