//! The two guards of a slot that a caller owns: [`Opening`] while a connection is opened in it, and [`CheckedOut`] once
//! there is one.
//!
//! `ServerPool` creates them, `TenantPool` runs statements on a [`CheckedOut`]. Invariant: dropping a guard at any
//! await returns the slot, and the connection in it if that one may be used again.
use super::connect_permits::ConnectPermit;
use super::scheduler::SlotId;
use super::server::{Deadline, Opener, ServerPool};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long [`CheckedOut::replace`] waits for a connect permit. It is the only code that waits for a permit while it
/// holds a slot.
const REOPEN_PATIENCE: Duration = Duration::from_millis(50);

/// A slot in which its owner opens a connection. Dropping it frees the slot.
pub(crate) struct Opening<O: Opener> {
    server: Arc<ServerPool<O>>,
    slot: SlotId,
    /// The connection in the slot, which must be closed before one is opened, and why it is closed.
    old: Option<(O::Conn, &'static str)>,
    permit: Option<ConnectPermit>,
    /// Whether a [`CheckedOut`] owns the slot by now.
    is_open: bool,
}

impl<O: Opener> Opening<O> {
    pub(super) fn new(
        server: Arc<ServerPool<O>>, slot: SlotId, old: Option<(O::Conn, &'static str)>, permit: Option<ConnectPermit>,
    ) -> Self {
        Self { server, slot, old, permit, is_open: false }
    }

    /// Opens the connection. The old connection in the slot is closed first; otherwise the slot would cover
    /// two connections.
    ///
    /// This function never waits for a connect permit, since permit holders may be waiting for slots. Without a permit
    /// it takes one if one is free, and otherwise opens the connection without one. Only [`CheckedOut::replace`] waits
    /// for a permit before it calls this function, at most [`REOPEN_PATIENCE`].
    pub(super) async fn open(
        mut self, target: &O::Target, deadline: Deadline,
    ) -> Result<CheckedOut<'static, O>, sqlx::Error> {
        if self.permit.is_none() {
            self.permit = self.server.connect_permits.try_acquire();
        }
        if let Some((old, why)) = self.old.take() {
            // If the caller drops the future here, the old connection is dropped too, which closes its socket.
            self.server.close_conn(old, why).await;
        }
        let conn = self.server.connect(target, self.slot, deadline).await?;
        self.is_open = true;
        let opened = CheckedOut::new(self.server.clone(), self.slot, conn);
        self.server.keep_slots_free();
        Ok(opened)
    }
}

impl<O: Opener> Drop for Opening<O> {
    fn drop(&mut self) {
        match self.old.take() {
            Some((old, why)) => self.server.discard(self.slot, old, why),
            None if self.is_open => {}
            None => self.server.lock_scheduler().abandon(self.slot),
        }
    }
}

/// A connection in use. Dropping it returns the connection to the server pool.
pub(crate) struct CheckedOut<'a, O: Opener> {
    pub(super) server: ServerRef<'a, O>,
    pub(super) slot: SlotId,
    /// `None` only after a method that consumes the guard has passed the connection on.
    pub(super) conn: Option<O::Conn>,
}

impl<'a, O: Opener> CheckedOut<'a, O> {
    pub(super) fn new(server: Arc<ServerPool<O>>, slot: SlotId, conn: O::Conn) -> Self {
        Self { server: ServerRef::Owned(server), slot, conn: Some(conn) }
    }
    /// As [`new`](Self::new), without an atomic reference count, for a caller that keeps the server pool alive.
    #[inline]
    pub(super) fn borrowing(server: &'a Arc<ServerPool<O>>, slot: SlotId, conn: O::Conn) -> Self {
        Self { server: ServerRef::Borrowed(server), slot, conn: Some(conn) }
    }
    /// The same guard without the borrow of the server pool.
    pub(crate) fn into_owned(mut self) -> CheckedOut<'static, O> {
        CheckedOut { server: ServerRef::Owned(self.server.clone()), slot: self.slot, conn: self.conn.take() }
    }

    /// Drops the broken connection and opens another one for the same tenant; see [`replace`](Self::replace).
    pub(super) async fn reopen(mut self, target: &O::Target) -> Result<CheckedOut<'static, O>, sqlx::Error> {
        drop(self.conn.take());
        self.open_again(None, target).await
    }

    /// Closes the connection, which works, and opens another one for the same tenant. It keeps the slot, so it waits for a
    /// connect permit for [`REOPEN_PATIENCE`] only and then opens without one: every permit may be held by a caller
    /// that waits for a slot, and after a restart of the server every slot may have a broken connection.
    pub(super) async fn replace(
        mut self, target: &O::Target, why: &'static str,
    ) -> Result<CheckedOut<'static, O>, sqlx::Error> {
        let old = self.conn.take().map(|conn| (conn, why));
        self.open_again(old, target).await
    }

    async fn open_again(
        self, old: Option<(O::Conn, &'static str)>, target: &O::Target,
    ) -> Result<CheckedOut<'static, O>, sqlx::Error> {
        let mut opening = Opening::new(self.server.clone(), self.slot, old, None);
        let deadline = Deadline::after(opening.server.acquire_limit);
        let permit = timeout(REOPEN_PATIENCE, opening.server.connect_permits.clone().acquire()).await;
        opening.permit = permit.ok().flatten();
        opening.open(target, deadline).await
    }
}

impl<O: Opener> Drop for CheckedOut<'_, O> {
    #[inline]
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            O::take_back(&self.server, self.slot, conn);
        }
    }
}

/// The server pool of a checkout. Borrowed where the share outlives the checkout, to save an atomic reference count.
pub(super) enum ServerRef<'a, O: Opener> {
    Borrowed(&'a Arc<ServerPool<O>>),
    Owned(Arc<ServerPool<O>>),
}

impl<O: Opener> Deref for ServerRef<'_, O> {
    type Target = Arc<ServerPool<O>>;
    fn deref(&self) -> &Arc<ServerPool<O>> {
        match self {
            Self::Borrowed(server) => server,
            Self::Owned(server) => server,
        }
    }
}
