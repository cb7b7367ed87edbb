//! Those who wait: in the order of their tenant, and in the order of all.
use super::{Grant, Key, SlotId, SlotScheduler, State, Waiter, WaiterId};

impl<C> SlotScheduler<C> {
    pub(super) fn unwait(&mut self, key: Key, id: WaiterId) -> Option<Waiter<C>> {
        let tenant = self.tenant(key)?;
        let at = tenant.waiters.iter().position(|w| w.id == id)?;
        let waiter = tenant.waiters.remove(at)?;
        tenant.needs_connection -= usize::from(waiter.needs_connection);
        Some(waiter)
    }

    /// Who waits for a connection of its tenant's that is not open any more must get one of its own.
    pub(super) fn promote(&mut self, key: Key) {
        let Some(tenant) = self.tenant(key) else { return };
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

    /// Gives free slots to those who wait for one.
    pub(super) fn pump(&mut self) {
        self.trim();
        while self.occupied < self.limit && !self.queue.is_empty() {
            let Some((slot, old)) = self.slot() else { return };
            if self.hand_over(slot, old).is_some() {
                self.slots[slot].state = State::Free;
                self.occupied -= 1;
                self.free.push(slot);
                return;
            }
            self.trim();
        }
    }

    /// Gives the slot to whoever has waited longest in all; back it comes if nobody does.
    pub(super) fn hand_over(&mut self, slot: SlotId, mut old: Option<C>) -> Option<Option<C>> {
        loop {
            self.trim();
            let Some((key, id, _)) = self.queue.pop_front() else { return Some(old) };
            let Some(waiter) = self.unwait(key, id) else { continue };
            self.occupy(slot, key);
            match waiter.to.send(Grant::Slot(slot, old)) {
                Ok(()) => return None,
                Err(Grant::Slot(_, back)) => old = back,
                Err(Grant::Conn(_, back)) => old = Some(back),
            }
            if let Some(tenant) = self.tenant(key) {
                tenant.open -= 1;
            }
        }
    }

    /// Heads of the queue that were served or gave up, or whose tenant has all that it may have.
    pub(super) fn trim(&mut self) {
        while let Some((key, id, _)) = self.queue.front().copied() {
            let Some(tenant) = self.tenant(key) else {
                self.queue.pop_front();
                continue;
            };
            let full = tenant.open >= tenant.cap;
            match tenant.waiters.iter_mut().find(|w| w.id == id) {
                Some(_) if !full => return,
                Some(waiter) => {
                    // One of the tenant's own connections serves it, or its end brings it back here.
                    tenant.needs_connection -= usize::from(std::mem::take(&mut waiter.needs_connection));
                }
                None => {}
            }
            self.queue.pop_front();
        }
    }
}
