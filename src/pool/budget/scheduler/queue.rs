//! The two orders in which waiters are served: each tenant's own waiters, and the queue of all tenants' waiters.
//!
//! Every waiter is in its tenant's list, in order of arrival. A waiter that needs a new connection is also in the
//! scheduler's queue once it may take a slot. The queue is cleaned lazily: an entry may belong to a waiter that was
//! served or gave up, and [`trim_queue`](SlotScheduler::trim_queue) drops such entries when they reach the front.
use super::{Grant, Key, SlotId, SlotScheduler, State, Waiter, WaiterId};

impl<C> SlotScheduler<C> {
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
            if self.hand_over(slot, old).is_some() {
                self.slots[slot].state = State::Free;
                self.occupied -= 1;
                self.free.push(slot);
                return;
            }
            self.trim_queue();
        }
    }

    /// Gives the slot to the waiter at the front of the queue. Returns `None` once a waiter has it, and `Some(old)` if
    /// there is no waiter. Waiters that have dropped their receiver are skipped.
    pub(super) fn hand_over(&mut self, slot: SlotId, mut old: Option<C>) -> Option<Option<C>> {
        loop {
            self.trim_queue();
            let Some((key, id, _)) = self.queue.pop_front() else { return Some(old) };
            let Some(waiter) = self.take_waiter(key, id) else { continue };
            self.occupy(slot, key);
            match waiter.to.send(Grant::Slot(slot, old)) {
                Ok(()) => return None,
                Err(Grant::Slot(_, back)) => old = back,
                Err(Grant::Conn(_, back)) => old = Some(back),
            }
            if let Some(tenant) = self.tenant_mut(key) {
                tenant.open -= 1;
            }
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
