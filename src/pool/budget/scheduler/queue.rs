//! The two orders in which waiters are served: each tenant's own waiters, and the queue of all tenants' waiters.
//!
//! Every waiter is in its tenant's list, in order of arrival. A waiter that needs a new connection is also in the
//! scheduler's queue once it may take a slot. The queue is cleaned lazily: an entry may belong to a waiter that was
//! served or gave up, and [`trim_queue`](SlotScheduler::trim_queue) drops such entries when they reach the front.
use super::{Grant, Key, SlotId, SlotScheduler, Waiter, WaiterId};
use std::time::Instant;
use tokio::sync::oneshot;

/// The answer to [`SlotScheduler::add_waiter`].
pub(crate) enum Added {
    Waiter {
        id: WaiterId,
        /// No connection of the tenant is open or on its way: this waiter must open one. Otherwise it should first wait
        /// a little, since a returned connection is cheaper than a new one.
        needs_connection: bool,
    },
    /// The tenant is retired.
    Retired,
}

/// The answer to [`SlotScheduler::request_slot`].
pub(crate) enum SlotAnswer<C> {
    /// As [`Grant::Slot`].
    Slot(SlotId, Option<C>),
    /// Every slot is in use. The waiter is in the queue and receives a grant when its turn comes.
    Queued,
    /// A grant is already on its way, or the tenant is at its cap and a returned connection will be granted.
    AwaitGrant,
}

impl<C> SlotScheduler<C> {
    /// Adds a waiter behind the tenant's other waiters.
    pub(crate) fn add_waiter(&mut self, key: Key, now: Instant, to: oneshot::Sender<Grant<C>>) -> Added {
        if self.is_retired(key) {
            return Added::Retired;
        }
        self.record_checkout(key);
        let id = self.next_waiter;
        self.next_waiter += 1;
        let Some(tenant) = self.tenant_mut(key) else { return Added::Retired };
        let needs_connection = tenant.open + tenant.needs_connection == 0;
        tenant.needs_connection += usize::from(needs_connection);
        tenant.waiters.push_back(Waiter { id, since: now, needs_connection, to });
        Added::Waiter { id, needs_connection }
    }

    /// Marks a waiter as one that is to open a connection. False if the tenant's cap does not allow one more, or if the
    /// waiter was served.
    pub(crate) fn mark_needs_connection(&mut self, key: Key, id: WaiterId) -> bool {
        let Some(tenant) = self.tenant_mut(key) else { return false };
        let has_room = tenant.open + tenant.needs_connection < tenant.cap;
        match tenant.waiters.iter_mut().find(|w| w.id == id) {
            Some(waiter) if waiter.needs_connection => true,
            Some(waiter) if has_room => {
                waiter.needs_connection = true;
                tenant.needs_connection += 1;
                true
            }
            _ => false,
        }
    }

    /// Asks for a slot to open a connection in. The waiter must have been marked by
    /// [`mark_needs_connection`](Self::mark_needs_connection) and have a connect permit. If no slot is available it
    /// joins the queue.
    pub(crate) fn request_slot(&mut self, key: Key, id: WaiterId, now: Instant) -> SlotAnswer<C> {
        let Some(tenant) = self.tenant_mut(key) else { return SlotAnswer::AwaitGrant };
        let full = tenant.open >= tenant.cap;
        let Some(waiter) = tenant.waiters.iter_mut().find(|w| w.id == id) else {
            return SlotAnswer::AwaitGrant;
        };
        if full {
            // The next connection that the tenant returns serves the waiter. If the tenant's last connection closes
            // instead, `promote` queues the waiter.
            tenant.needs_connection -= usize::from(std::mem::take(&mut waiter.needs_connection));
            return SlotAnswer::AwaitGrant;
        }
        match self.take_slot() {
            Some((slot, old)) => {
                drop(self.take_waiter(key, id));
                self.occupy(slot, key);
                SlotAnswer::Slot(slot, old)
            }
            None => {
                self.queue.push_back((key, id, now));
                SlotAnswer::Queued
            }
        }
    }

    /// Removes a waiter that was served or gave up. The waiter itself must return a grant that was already sent to it.
    pub(crate) fn remove_waiter(&mut self, key: Key, id: WaiterId) {
        drop(self.take_waiter(key, id));
        self.promote(key);
        self.serve_queue();
    }

    /// Removes a waiter from its tenant's list. Its entry in the queue stays until it is trimmed.
    pub(super) fn take_waiter(&mut self, key: Key, id: WaiterId) -> Option<Waiter<C>> {
        let tenant = self.tenant_mut(key)?;
        let at = tenant.waiters.iter().position(|w| w.id == id)?;
        let waiter = tenant.waiters.remove(at)?;
        tenant.needs_connection -= usize::from(waiter.needs_connection);
        Some(waiter)
    }

    /// Queues the tenant's first waiter for a new connection if none is open or on its way. Otherwise that waiter would
    /// wait for ever: it was waiting for a connection of its tenant that has since been closed.
    pub(super) fn promote(&mut self, key: Key) {
        let Some(tenant) = self.tenant_mut(key) else { return };
        if tenant.open + tenant.needs_connection > 0 {
            return;
        }
        if let Some(waiter) = tenant.waiters.front_mut() {
            waiter.needs_connection = true;
            tenant.needs_connection += 1;
            let entry = (key, waiter.id, waiter.since);
            self.queue.push_back(entry);
        }
    }

    /// Gives free slots to queued waiters until the slots or the waiters run out.
    pub(super) fn serve_queue(&mut self) {
        self.trim_queue();
        while self.occupied < self.limit && !self.queue.is_empty() {
            let Some((slot, old)) = self.take_slot() else { return };
            match self.assign(slot) {
                Some(waiter) => self.deliver(waiter, slot, Grant::Slot(slot, old)),
                None => return self.free_slot(slot),
            }
            self.trim_queue();
        }
    }

    /// Takes the first queued waiter and gives the slot to its tenant. The caller must [`deliver`](Self::deliver) the
    /// slot to the waiter. `None`: no waiter is queued.
    pub(super) fn assign(&mut self, slot: SlotId) -> Option<Waiter<C>> {
        loop {
            self.trim_queue();
            let (key, id, _) = self.queue.pop_front()?;
            if let Some(waiter) = self.take_waiter(key, id) {
                self.occupy(slot, key);
                return Some(waiter);
            }
        }
    }

    /// Removes the tenant's first waiter.
    pub(super) fn take_next_waiter(&mut self, key: Key) -> Option<Waiter<C>> {
        let first = self.tenant_mut(key).and_then(|tenant| tenant.waiters.front().map(|waiter| waiter.id));
        first.and_then(|id| self.take_waiter(key, id))
    }

    /// Sends a slot that belongs to the waiter's tenant. This succeeds, because a waiter is removed before it drops its
    /// receiver. If it did fail, the slot would have no owner, so it is freed.
    pub(super) fn deliver(&mut self, waiter: Waiter<C>, slot: SlotId, grant: Grant<C>) {
        if waiter.to.send(grant).is_err() {
            self.abandon(slot);
        }
    }

    /// Drops entries at the front of the queue whose waiter was served or gave up, or whose tenant is at its cap.
    pub(super) fn trim_queue(&mut self) {
        while let Some((key, id, _)) = self.queue.front().copied() {
            let Some(tenant) = self.tenant_mut(key) else {
                self.queue.pop_front();
                continue;
            };
            let full = tenant.open >= tenant.cap;
            match tenant.waiters.iter_mut().find(|w| w.id == id) {
                Some(_) if !full => return,
                Some(waiter) => {
                    // The waiter stays in its tenant's list: the next connection that the tenant returns serves it, and
                    // if the tenant's last connection closes instead, `promote` queues it again.
                    tenant.needs_connection -= usize::from(std::mem::take(&mut waiter.needs_connection));
                }
                None => {}
            }
            self.queue.pop_front();
        }
    }
}
