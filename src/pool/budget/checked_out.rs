//! What a caller does with a PostgreSQL connection that it has checked out, and how the connection comes back.
//!
//! `TenantPool` runs a statement on [`session`](CheckedOut::session) and then calls [`release_clean`] or
//! [`release_failed`], or drops the guard. Invariant: a connection that may have an open transaction, an unread answer
//! or (with `discard_on_release`) session state is cleared before it is given to the next caller.
//!
//! [`release_clean`]: CheckedOut::release_clean
//! [`release_failed`]: CheckedOut::release_failed
use super::connection::Conn;
use super::guards::CheckedOut;
use super::opener::{PgOpener, PgServer};
use super::scheduler::SlotId;
use crate::pool::clock::coarse_time;
use crate::rt;
use crate::sqlstate::{is_connection_lost, is_stale_plan};
use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Time limit for a ping. Short, so that a caller that gets a dead connection has another one within a second.
const PING_LIMIT: Duration = Duration::from_millis(500);

pub(crate) type PgCheckedOut<'a> = CheckedOut<'a, PgOpener>;

impl PgCheckedOut<'_> {
    /// The session to run statements on. From now on the connection is cleared when it is dropped.
    pub(crate) fn session(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        let Some(conn) = &mut self.conn else { return Err(sqlx::Error::WorkerCrashed) };
        conn.needs_clearing = true;
        conn.held.as_deref_mut().ok_or(sqlx::Error::WorkerCrashed)
    }

    /// Whether the connection can be used as it is: it needs no ping and has not expired.
    pub(super) fn is_ready(&self) -> bool {
        let now = coarse_time();
        self.conn.as_ref().is_some_and(|conn| self.server.opener.is_usable(conn, now) && !conn.is_expired(now))
    }
    /// Whether the connection has reached its lifetime or was idle for too long.
    pub(super) fn is_expired(&self) -> bool {
        self.conn.as_ref().is_some_and(|conn| conn.is_expired(coarse_time()))
    }
    /// Whether the tenant's share is retired, so that the connection is closed when it is returned.
    pub(crate) fn is_retired(&self) -> bool {
        self.server.lock_scheduler().is_retired_slot(self.slot)
    }
    /// Replaces the connection, whose session is older than the tenant's schema, by a new one.
    pub(crate) async fn replace_stale(self) -> Result<PgCheckedOut<'static>, sqlx::Error> {
        let target = self.conn.as_ref().map(|conn| conn.target.clone()).ok_or(sqlx::Error::WorkerCrashed)?;
        self.replace(&target, "its session is older than the tenant's schema").await
    }

    /// Whether the connection answers. Takes it out of its sqlx pool if it is there, and pings it if that is due.
    pub(super) async fn is_alive(&mut self) -> bool {
        let opener = &self.server.opener;
        let Some(conn) = &mut self.conn else { return false };
        let now = coarse_time();
        if opener.is_usable(conn, now) {
            return true;
        }
        let (lost, needs_ping) = (opener.lost_connections(), opener.needs_ping(conn, now));
        let is_alive = matches!(timeout(PING_LIMIT, conn.check(needs_ping)).await, Ok(Ok(())));
        conn.record_check(lost);
        is_alive
    }

    /// Returns the connection to the tenant's idle ones at once. The caller must have read every answer and left no
    /// transaction open. With `discard_on_release` the connection is cleared all the same.
    pub(crate) fn release_clean(mut self) {
        if let Some(conn) = &mut self.conn {
            conn.needs_clearing = self.server.opener.handover.discard;
        }
    }

    /// Returns the connection after a failed statement. After an error that the server reported the session is usable,
    /// so it is returned as clean, except after 0A000: the session may have a plan of an older schema, which fails
    /// each time, so it is closed. After a protocol error the session may expect more input (the rest of a `COPY … FROM
    /// STDIN`, for example), so it is closed at once. A lost connection is returned through the sqlx pool, which closes
    /// it before the slot is freed.
    pub(crate) fn release_failed(mut self, error: &sqlx::Error) {
        match error {
            sqlx::Error::Protocol(_) => {
                if let Some(conn) = self.conn.take() {
                    self.server.discard(self.slot, conn, "a statement broke the protocol");
                }
            }
            error if is_stale_plan(error) => {
                if let Some(conn) = self.conn.take() {
                    self.server.discard(self.slot, conn, "a statement reported that its plan cannot be used any more");
                }
            }
            error if is_connection_lost(error) => {
                if let Some(conn) = &self.conn {
                    self.server.opener.record_lost_connection(conn.target.tenant);
                }
            }
            sqlx::Error::Database(_) | sqlx::Error::RowNotFound => self.release_clean(),
            _ => {}
        }
    }

    /// The sqlx connection for the caller to keep. When the caller drops it, its `after_release` hook returns it here.
    pub(crate) fn into_pool_connection(mut self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let lent = self.conn.take().and_then(|conn| self.server.lend(self.slot, conn));
        lent.ok_or(sqlx::Error::WorkerCrashed)
    }
}

impl PgCheckedOut<'_> {
    /// A listener on this connection, and the token that is cancelled when the tenant's share is retired. The slot stays
    /// occupied until the listener is dropped and the connection is returned or closed.
    pub(crate) async fn into_listener(mut self) -> Result<(PgListener, CancellationToken), sqlx::Error> {
        let Some(conn) = &mut self.conn else { return Err(sqlx::Error::WorkerCrashed) };
        // `PgListener` takes its connection from an sqlx pool, and this one has only this connection.
        if let Some(mut held) = conn.held.take() {
            held.return_to_pool().await;
        }
        let (pool, retired) = (conn.pool.clone(), conn.target.retired.clone());
        let listener = rt::poll_batched(PgListener::connect_with(&pool)).await?;
        // There is no await between the two lines: a listener on a slot that is not lent would exceed the limit.
        if let Some(conn) = self.conn.take() {
            self.server.lock_scheduler().lend(self.slot, conn);
        }
        Ok((listener, retired))
    }
}

impl PgServer {
    /// Takes the sqlx connection out of its slot, which stays occupied until the connection is returned or closed.
    pub(super) fn lend(&self, slot: SlotId, mut conn: Box<Conn>) -> Option<PoolConnection<Postgres>> {
        let held = conn.held.take();
        // Mark the slot as lent before the caller has the connection: the caller may return it at once.
        self.lock_scheduler().lend(slot, conn);
        held
    }

    /// Takes back a lent connection. sqlx calls the hook before it puts the connection into the sqlx pool, so `held` is
    /// `None`: the next checkout acquires it from there. A connection that could not be cleared only frees its slot.
    pub(super) fn accept_returned(self: &Arc<Self>, slot: SlotId, id: u64, cleared: bool) {
        let lent = self.lock_scheduler().take_lent(slot, |conn| conn.id == id);
        match lent {
            Some(mut conn) if cleared => {
                conn.record_check(self.opener.lost_connections());
                conn.needs_clearing = false;
                self.give_back(slot, conn);
            }
            Some(_) => self.lock_scheduler().abandon(slot),
            None => {}
        }
    }
}
