//! A caller's wait for a slot or a connection.
//!
//! [`ServerPool::acquire`] creates a [`Waiting`] when no idle connection serves the caller. It ends with a guard of the
//! slot that was granted. A caller that was granted a slot without a connect permit does not wait for one.
use super::connect_permits::ConnectPermit;
use super::guards::{CheckedOut, Opening};
use super::scheduler::{Grant, Key, SlotAnswer, WaiterId};
use super::server::{Deadline, Opener, ServerPool};
use crate::pool::AcquireError;
use std::sync::{Arc, atomic::Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// How often a waiting caller looks for lent connections that were detached or closed, and frees their slots.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// A caller's wait for a connection. Dropping it removes the waiter; a grant that arrived in the meantime goes to the
/// next waiter.
pub(crate) struct Waiting<O: Opener> {
    server: Arc<ServerPool<O>>,
    key: Key,
    id: WaiterId,
    grant: oneshot::Receiver<Grant<O::Conn>>,
    deadline: Deadline,
    /// No connection of the tenant is open or on its way, so this waiter opens one at once.
    needs_connection: bool,
    /// Whether the wait has ended with a grant, so that the scheduler knows the waiter no longer.
    is_served: bool,
}

/// What a wait ended with.
pub(crate) enum Granted<O: Opener> {
    /// A connection of the waiter's own tenant.
    Connection(CheckedOut<'static, O>),
    /// A slot to open a connection in, until the deadline.
    Slot(Opening<O>, Deadline),
    /// The tenant's share was retired in the meantime.
    Retired,
}

impl<O: Opener> Waiting<O> {
    pub(super) fn new(
        server: Arc<ServerPool<O>>, key: Key, id: WaiterId, grant: oneshot::Receiver<Grant<O::Conn>>,
        deadline: Deadline, needs_connection: bool,
    ) -> Self {
        Self { server, key, id, grant, deadline, needs_connection, is_served: false }
    }

    /// Waits for a connection that is returned, for as long as opening one takes: a returned connection is cheaper than
    /// a new one. `None`: none was returned in that time, or the waiter is to open one at once.
    pub(super) async fn wait_for_returned(&mut self) -> Option<Granted<O>> {
        if self.needs_connection {
            return None;
        }
        let pause = Duration::from_micros(self.server.connect_time.load(Relaxed));
        let until = self.deadline.until.min(self.deadline.began + pause);
        let grant = timeout_at(until, &mut self.grant).await.ok()?;
        Some(self.accept(grant.ok(), None))
    }

    /// Waits for a grant until the deadline.
    pub(super) async fn wait(mut self) -> Result<Granted<O>, AcquireError> {
        if !self.needs_connection {
            if let Some(granted) = self.wait_for_returned().await {
                return Ok(granted);
            }
            if !self.server.lock_scheduler().mark_needs_connection(self.key, self.id) {
                return self.wait_for_grant(None).await;
            }
        }
        self.wait_for_permit().await
    }

    /// Waits for a connect permit and then for a slot. A grant that arrives in the meantime ends the wait.
    async fn wait_for_permit(mut self) -> Result<Granted<O>, AcquireError> {
        let permit = self.server.connect_permits.clone().acquire();
        tokio::pin!(permit);
        let permit = loop {
            tokio::select! {
                biased;
                grant = &mut self.grant => return Ok(self.accept(grant.ok(), None)),
                permit = &mut permit => break permit,
                () = sleep_until(self.deadline.until) => return Err(self.permit_timeout()),
                () = sleep(SWEEP_INTERVAL) => self.server.sweep(),
            }
        };
        let answer = self.server.lock_scheduler().request_slot(self.key, self.id, Instant::now().into_std());
        match answer {
            SlotAnswer::Slot(slot, old) => Ok(self.accept(Some(Grant::Slot(slot, old)), permit)),
            SlotAnswer::Queued | SlotAnswer::AwaitGrant => self.wait_for_grant(permit).await,
        }
    }

    async fn wait_for_grant(mut self, permit: Option<ConnectPermit>) -> Result<Granted<O>, AcquireError> {
        loop {
            tokio::select! {
                biased;
                grant = &mut self.grant => return Ok(self.accept(grant.ok(), permit)),
                () = sleep_until(self.deadline.until) => {
                    return Err(AcquireError::PoolExhausted { waited: self.deadline.waited() });
                }
                () = sleep(SWEEP_INTERVAL) => self.server.sweep(),
            }
        }
    }

    /// Puts a grant into a guard. `None`: the sender was dropped, because the share is retired.
    fn accept(&mut self, grant: Option<Grant<O::Conn>>, permit: Option<ConnectPermit>) -> Granted<O> {
        self.is_served = true;
        let server = self.server.clone();
        match grant {
            Some(Grant::Conn(slot, conn)) => Granted::Connection(CheckedOut::new(server, slot, conn)),
            Some(Grant::Slot(slot, old)) => {
                let old = old.map(|conn| (conn, "another tenant needs its slot"));
                Granted::Slot(Opening::new(server, slot, old, permit), self.deadline)
            }
            None => Granted::Retired,
        }
    }

    /// The error after a timeout without a connect permit: [`AcquireError::ConnectQueue`] if the server has a slot for
    /// one more connection, else [`AcquireError::PoolExhausted`].
    fn permit_timeout(&self) -> AcquireError {
        let waited = self.deadline.waited();
        match self.server.lock_scheduler().has_room() {
            true => AcquireError::ConnectQueue { waited },
            false => AcquireError::PoolExhausted { waited },
        }
    }
}

impl<O: Opener> Drop for Waiting<O> {
    fn drop(&mut self) {
        if self.is_served {
            return;
        }
        self.server.lock_scheduler().remove_waiter(self.key, self.id);
        // The scheduler sends no grant after this. One that it sent before is returned here.
        self.grant.close();
        if let Ok(grant) = self.grant.try_recv() {
            drop(self.accept(Some(grant), None));
        }
    }
}
