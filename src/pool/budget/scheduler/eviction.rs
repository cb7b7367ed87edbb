//! Which idle connection the scheduler closes when a slot is needed, and how it takes it from its tenant.
//!
//! The victim is the idle connection whose tenant has the lowest checkout frequency. Connections in use are never
//! taken.
use super::{Slot, SlotId, SlotScheduler, State};

impl<C> SlotScheduler<C> {
    /// The slot of the idle connection whose tenant is least frequently used.
    pub(super) fn find_victim(&self) -> Option<SlotId> {
        let frequency = |slot: &Slot<C>| {
            let tenant = self.tenants.get(slot.tenant).and_then(Option::as_ref);
            tenant.map_or(0.0, |t| t.frequency_at(self.halvings))
        };
        let idle = self.slots.iter().enumerate().filter(|(_, slot)| matches!(slot.state, State::Idle(_)));
        let rated = idle.map(|(at, slot)| (at, frequency(slot)));
        rated.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(at, _)| at)
    }

    /// Takes an idle connection away from its tenant. The slot stays occupied.
    pub(super) fn evict(&mut self, slot: SlotId) -> Option<C> {
        match std::mem::replace(&mut self.slots[slot].state, State::Busy) {
            State::Idle(conn) => {
                let key = self.slots[slot].tenant;
                if let Some(tenant) = self.tenant_mut(key) {
                    tenant.idle.retain(|at| *at != slot);
                }
                self.vacate(slot);
                Some(conn)
            }
            other => {
                self.slots[slot].state = other;
                None
            }
        }
    }

    /// Evicts an idle connection and marks its slot as closing. The caller must close the connection and then
    /// [`free`](Self::free_slot) the slot.
    pub(super) fn evict_to_close(&mut self, slot: SlotId) -> Option<(SlotId, C)> {
        let conn = self.evict(slot)?;
        self.mark_closing(slot);
        Some((slot, conn))
    }

    /// Evicts the idle connections that `is_victim` selects. The caller must close them and then
    /// [`free`](Self::free_slot) their slots.
    pub(crate) fn evict_where(&mut self, is_victim: impl Fn(&C) -> bool) -> Vec<(SlotId, C)> {
        let is_victim = |slot: &Slot<C>| matches!(&slot.state, State::Idle(conn) if is_victim(conn));
        let slots: Vec<_> = (0..self.slots.len()).filter(|at| is_victim(&self.slots[*at])).collect();
        slots.into_iter().filter_map(|slot| self.evict_to_close(slot)).collect()
    }

    /// Evicts the idle connection of the least frequently used tenant if fewer than `reserve` slots are free or about
    /// to be. The caller must close it and then [`free`](Self::free_slot) its slot. Later callers then find a free slot
    /// and need not wait for a connection to close.
    pub(crate) fn evict_for_reserve(&mut self, reserve: usize) -> Option<(SlotId, C)> {
        if self.limit.saturating_sub(self.occupied - self.closing) >= reserve {
            return None;
        }
        let slot = self.find_victim()?;
        self.evict_to_close(slot)
    }
}
