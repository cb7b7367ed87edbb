//! A tenant's share of a server pool.
//!
//! The resolver creates one for each tenant and server, and `TenantPool` takes its connections from it. An unused share
//! owns no connection and no task.
use super::acquire::{Acquired, Entry};
use super::checked_out::PgCheckedOut;
use super::circuit_breaker::CircuitBreaker;
use super::connection::Target;
use super::opener::{PgOpener, PgServer};
use super::scheduler::Key;
use super::waiting::Granted;
use crate::pool::clock::coarse_time;
use crate::tenant::TenantId;
use sqlx::postgres::PgConnectOptions;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub(crate) type PgAcquired = Acquired<PgOpener>;
pub(crate) type PgEntry = Entry<PgOpener>;

/// A tenant's share of a server pool: a key and the options for its connections. Dropping it closes the tenant's
/// connections.
pub(crate) struct TenantShare {
    server: Arc<PgServer>,
    key: Key,
    target: Arc<Target>,
}

impl TenantShare {
    /// Joins the server pool with at most `cap` connections. Opens nothing.
    pub(crate) fn new(tenant: TenantId, server: Arc<PgServer>, cap: u32, options: PgConnectOptions) -> Self {
        let target = Target { tenant, options, retired: CancellationToken::new() };
        Self { key: server.join(cap), server, target: Arc::new(target) }
    }
    /// The tenant's open connections to this server, and how many of them are in use.
    pub(crate) fn usage(&self) -> (usize, usize) {
        self.server.lock_scheduler().usage(self.key)
    }
    /// Whether no further connection is possible now: the tenant is at its cap, or the server pool has no free slot.
    pub(crate) fn is_full(&self) -> bool {
        self.server.lock_scheduler().is_full(self.key)
    }
    /// The circuit breaker of the server. All its tenants share it.
    pub(crate) fn circuit_breaker(&self) -> &CircuitBreaker {
        &self.server.opener.circuit_breaker
    }
    /// Stops serving the tenant: idle connections are closed now, connections in use when they are returned.
    pub(crate) fn retire(&self) {
        self.server.retire(self.key);
        self.target.retired.cancel();
    }

    /// Takes an idle connection that needs no ping, without waiting.
    pub(crate) fn checkout(&self) -> Option<PgCheckedOut<'_>> {
        let now = coarse_time();
        let mut checked_out = self.server.checkout(self.key, |conn| self.server.opener.is_usable(conn, now));
        if let Some(conn) = checked_out.as_mut().and_then(|checked_out| checked_out.conn.as_mut()) {
            conn.checked_at = now;
        }
        checked_out
    }

    /// Takes an idle connection, or joins the queue of the tenant's callers.
    pub(crate) fn enter(&self) -> PgEntry {
        self.server.close_expired_if_due(coarse_time());
        self.server.enter(self.key)
    }

    /// Waits for a connection that another caller of the tenant returns: most waits end so. The search that continues
    /// with the entry (`Err`) has a future of kilobytes, which costs more than the rest of the wait.
    pub(crate) async fn wait_for_returned(&self) -> Result<PgCheckedOut<'static>, PgEntry> {
        let span = tracing::debug_span!("wait for the budget", tenant = %self.target.tenant);
        match self.enter().wait_for_returned().instrument(span).await {
            Entry::Granted(Granted::Connection(checked_out)) if checked_out.is_ready() => Ok(checked_out),
            entry => Err(entry),
        }
    }

    /// Waits for a connection or opens one; pings it first if it was idle for longer than `ping_after`, and replaces it
    /// if it has expired.
    pub(crate) async fn acquire(&self, entry: PgEntry) -> Result<PgAcquired, sqlx::Error> {
        let acquire = async {
            match self.server.acquire(entry, &self.target).await? {
                Acquired::Connection(checked_out) => {
                    self.replace_if_unusable(checked_out).await.map(Acquired::Connection)
                }
                Acquired::Retired => Ok(Acquired::Retired),
            }
        };
        acquire.instrument(tracing::debug_span!("acquire", tenant = %self.target.tenant)).await
    }

    async fn replace_if_unusable(
        &self, mut checked_out: PgCheckedOut<'static>,
    ) -> Result<PgCheckedOut<'static>, sqlx::Error> {
        if checked_out.is_expired() {
            return checked_out.replace(&self.target, "its lifetime or its idle time was over").await;
        }
        if checked_out.is_alive().await {
            return Ok(checked_out);
        }
        tracing::debug!("an idle connection did not answer a ping; opening another one");
        self.server.opener.record_lost_connection(self.target.tenant);
        checked_out.reopen(&self.target).await
    }
}

impl Drop for TenantShare {
    fn drop(&mut self) {
        self.server.leave(self.key);
        self.target.retired.cancel();
    }
}
