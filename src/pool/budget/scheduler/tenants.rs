//! How tenants join the scheduler and leave it, and how often each of them is used.
//!
//! A key stays valid until its tenant has left and its last connection is closed. Then another tenant may get it.
use super::{Key, SlotId, SlotScheduler, Tenant};

impl<C> SlotScheduler<C> {
    /// Adds a tenant that may have at most `cap` connections.
    pub(crate) fn join(&mut self, cap: usize) -> Key {
        let (idle, waiters) = Default::default();
        let (open, needs_connection, frequency, retired) = (0, 0, 0.0, self.closed);
        let tenant =
            Some(Tenant { cap, open, needs_connection, frequency, halvings: self.halvings, idle, waiters, retired });
        match self.vacant.pop() {
            Some(key) => {
                self.tenants[key] = tenant;
                key
            }
            None => {
                self.tenants.push(tenant);
                self.tenants.len() - 1
            }
        }
    }

    /// The tenant's open connections, and how many of them are in use.
    pub(crate) fn usage(&self, key: Key) -> (usize, usize) {
        let tenant = self.tenants.get(key).and_then(Option::as_ref);
        tenant.map_or((0, 0), |tenant| (tenant.open, tenant.open.saturating_sub(tenant.idle.len())))
    }

    /// Whether the tenant is at its cap, or no slot is free or can be freed by an eviction.
    pub(crate) fn is_full(&self, key: Key) -> bool {
        let tenant = self.tenants.get(key).and_then(Option::as_ref);
        tenant.is_some_and(|tenant| tenant.open >= tenant.cap) || !self.has_room()
    }

    /// Stops serving a tenant. Its waiters receive nothing; their channel closes. Returns its idle connections, which
    /// the caller must close and then [`free`](Self::free_slot). Connections in use are returned for closing by
    /// [`release`](Self::release).
    pub(crate) fn retire(&mut self, key: Key) -> Vec<(SlotId, C)> {
        let Some(tenant) = self.tenant_mut(key) else { return vec![] };
        tenant.retired = true;
        tenant.needs_connection = 0;
        tenant.waiters.clear();
        let idle = std::mem::take(&mut tenant.idle);
        idle.into_iter().filter_map(|slot| self.evict_to_close(slot)).collect()
    }

    /// Releases the key of a retired tenant, at once or when its last connection is closed. The key may be reused.
    pub(crate) fn leave(&mut self, key: Key) {
        if self.tenant_mut(key).is_some_and(|t| t.retired && t.open == 0) {
            self.tenants[key] = None;
            self.vacant.push(key);
        } else if let Some(tenant) = self.tenant_mut(key) {
            // A cap of zero makes `vacate` release the key with the last connection.
            tenant.cap = 0;
        }
    }

    pub(crate) fn is_retired(&self, key: Key) -> bool {
        self.tenants.get(key).and_then(Option::as_ref).is_none_or(|t| t.retired)
    }

    /// Whether the tenant of an occupied slot is retired.
    pub(crate) fn is_retired_slot(&self, slot: SlotId) -> bool {
        self.slots.get(slot).is_some_and(|slot| self.is_retired(slot.tenant))
    }

    /// Retires all tenants, and each tenant that joins later. Returns all idle connections, for the caller to close.
    pub(crate) fn close(&mut self) -> Vec<(SlotId, C)> {
        self.closed = true;
        self.queue.clear();
        (0..self.tenants.len()).flat_map(|key| self.retire(key)).collect()
    }
}

impl<C> Tenant<C> {
    /// The tenant's checkout frequency after the halvings that it has not applied yet.
    pub(super) fn frequency_at(&self, halvings: u32) -> f32 {
        match halvings.wrapping_sub(self.halvings) {
            0 => self.frequency,
            n => self.frequency * 0.5_f32.powi(n.min(64) as i32),
        }
    }
}
