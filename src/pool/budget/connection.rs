//! A real connection of a server pool: a [`PgConnection`](sqlx::PgConnection) in an sqlx pool of its own.
//!
//! The sqlx pool has this one connection. It exists so that a caller of `TenantPool::acquire` gets a real
//! [`PoolConnection`]: when the caller drops it, sqlx runs the `after_release` hook, which clears the session and
//! reports the connection to the server pool.
use super::lifetime::{Expiry, Lifetimes};
use crate::pool::clock::coarse_time;
use crate::tenant::TenantId;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{Connection, Postgres};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// What a tenant's connections are opened with. Must not implement `Debug`: the options print the password.
pub(crate) struct Target {
    pub(super) tenant: TenantId,
    pub(super) options: PgConnectOptions,
    /// Cancelled when the share is retired, for a listener, which keeps its connection and would not notice.
    pub(super) retired: CancellationToken,
}

/// What happens to a connection between one caller and the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handover {
    /// Whether `DISCARD ALL` runs when a connection is returned.
    pub(crate) discard: bool,
    /// A connection that was idle for longer is pinged before use.
    pub(crate) ping_after: Duration,
    /// Time limit for clearing a returned connection. After it the connection is closed.
    pub(crate) release_timeout: Duration,
    /// When a connection expires.
    pub(crate) lifetimes: Lifetimes,
}

pub(crate) struct Conn {
    pub(super) id: u64,
    /// What it was opened with, to open another one in its place.
    pub(super) target: Arc<Target>,
    pub(super) pool: PgPool,
    /// The connection itself. It stays outside `pool` while it is idle, because sqlx pings at each return to the pool.
    /// `None` after the connection was returned through `pool`, until the next checkout acquires it from there.
    pub(super) held: Option<PoolConnection<Postgres>>,
    /// Coarse time of the last checkout or ping: an upper bound for how long it has been idle.
    pub(super) checked_at: Duration,
    pub(super) expiry: Expiry,
    /// Whether a caller has had the session, so that it may have an open transaction, an unread answer or changed
    /// settings.
    pub(super) needs_clearing: bool,
    /// Lost connections of the server at the last ping.
    pub(super) lost_connections: u64,
}

impl Conn {
    /// Takes the session out of its sqlx pool if it is there, and pings it if `needs_ping`. Records no result.
    pub(super) async fn check(&mut self, needs_ping: bool) -> Result<(), sqlx::Error> {
        let held = match &mut self.held {
            Some(held) => held,
            None => self.held.insert(self.pool.acquire().await?),
        };
        if needs_ping { held.ping().await } else { Ok(()) }
    }
    /// Whether the session has reached its lifetime, or was idle for too long.
    pub(super) fn is_expired(&self, now: Duration) -> bool {
        self.expiry.is_over(self.checked_at, now)
    }
    /// Records a check at this moment. `lost_connections` is the server's count before the check began.
    pub(super) fn record_check(&mut self, lost_connections: u64) {
        (self.checked_at, self.lost_connections) = (coarse_time(), lost_connections);
    }
}

/// sqlx returns a connection to its pool in a spawned task and panics without a runtime. Without one, detach and close
/// it.
impl Drop for Conn {
    fn drop(&mut self) {
        if let Some(held) = self.held.take_if(|_| Handle::try_current().is_err()) {
            drop(held.detach());
        }
    }
}
