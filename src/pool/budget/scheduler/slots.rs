//! How slots are occupied, vacated and freed.
//!
//! A slot leaves its tenant in two steps: [`vacate`](SlotScheduler::vacate) takes it from the tenant, and
//! [`free_slot`](SlotScheduler::free_slot) makes it usable for others once its connection is closed.
use super::{Key, Slot, SlotId, SlotScheduler, State};

impl<C> SlotScheduler<C> {
    /// Occupies a free slot, or the slot of the idle connection whose tenant is least frequently used. That connection
    /// is returned for the caller to close.
    pub(super) fn take_slot(&mut self) -> Option<(SlotId, Option<C>)> {
        if self.occupied < self.limit {
            let slot = self.free.pop().unwrap_or(self.slots.len());
            if slot == self.slots.len() {
                self.slots.push(Slot { tenant: 0, state: State::Free });
            }
            self.slots[slot].state = State::Busy;
            self.occupied += 1;
            return Some((slot, None));
        }
        if self.occupied > self.limit {
            return None;
        }
        let slot = self.find_victim()?;
        let conn = self.evict(slot)?;
        self.counts.evictions += 1;
        Some((slot, Some(conn)))
    }

    /// Marks the slot as closing. [`free_slot`](Self::free_slot) must follow.
    pub(crate) fn mark_closing(&mut self, slot: SlotId) {
        self.slots[slot].state = State::Closing;
        self.closing += 1;
    }

    /// Takes the slot away from its tenant, and promotes a waiter if that was the tenant's last connection.
    pub(crate) fn vacate(&mut self, slot: SlotId) {
        let key = self.slots[slot].tenant;
        self.slots[slot].state = State::Busy;
        if let Some(tenant) = self.tenant_mut(key) {
            tenant.open -= 1;
            if tenant.open == 0 && tenant.retired && tenant.cap == 0 {
                self.tenants[key] = None;
                self.vacant.push(key);
            }
        }
        self.promote(key);
    }

    pub(super) fn occupy(&mut self, slot: SlotId, key: Key) {
        self.slots[slot].tenant = key;
        if let Some(tenant) = self.tenant_mut(key) {
            tenant.open += 1;
        }
    }

    /// Frees a slot without an open connection: opening failed, or the connection broke.
    pub(crate) fn abandon(&mut self, slot: SlotId) {
        self.vacate(slot);
        self.free_slot(slot);
    }

    /// Frees a slot after its connection was closed, and serves the queue. The slot must be vacated.
    pub(crate) fn free_slot(&mut self, slot: SlotId) {
        if let State::Closing = std::mem::replace(&mut self.slots[slot].state, State::Free) {
            self.closing -= 1;
        }
        self.occupied -= 1;
        self.free.push(slot);
        self.serve_queue();
    }

    /// Changes the limit. Returns surplus idle connections, which the caller must close and then
    /// [`free`](Self::free_slot).
    pub(crate) fn resize(&mut self, limit: usize) -> Vec<(SlotId, C)> {
        self.limit = limit;
        let mut evicted = vec![];
        while self.occupied - self.closing > self.limit {
            let Some(slot) = self.find_victim() else { break };
            evicted.extend(self.evict_to_close(slot));
        }
        self.serve_queue();
        evicted
    }
}
