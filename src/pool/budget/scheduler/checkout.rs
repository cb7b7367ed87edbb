//! How an idle connection is checked out, and where a returned one goes.
use super::{AFFINITY, CHECKOUTS_PER_HALVING, Grant, Key, Slot, SlotId, SlotScheduler, State};
use std::time::Instant;

/// What [`SlotScheduler::release`] did with a connection.
pub(crate) enum Released<C> {
    /// A waiter has it, or it is idle.
    Kept,
    /// The tenant is retired or the limit was lowered. The caller must close the connection and then
    /// [`free`](SlotScheduler::free_slot) its slot.
    MustClose(C),
}

/// Whether a waiter in the queue took the slot of a returned connection.
enum Offer<C> {
    Accepted,
    Declined(C),
}

impl<C> SlotScheduler<C> {
    /// Takes the tenant's connection that has been idle for the shortest time, if `is_usable` accepts it.
    pub(crate) fn checkout(&mut self, key: Key, is_usable: impl FnOnce(&C) -> bool) -> Option<(SlotId, C)> {
        let slot = *self.tenant_mut(key)?.idle.last()?;
        let state = &mut self.slots[slot].state;
        let conn = match std::mem::replace(state, State::Busy) {
            State::Idle(conn) if is_usable(&conn) => conn,
            other => {
                *state = other;
                return None;
            }
        };
        self.tenant_mut(key)?.idle.pop();
        self.counts.hits += 1;
        self.record_checkout(key);
        Some((slot, conn))
    }

    /// Counts one checkout and raises the tenant's frequency. Called once per caller, for hits and waiters alike.
    pub(super) fn record_checkout(&mut self, key: Key) {
        self.counts.checkouts += 1;
        self.until_halving = self.until_halving.saturating_sub(1);
        if self.until_halving == 0 {
            self.until_halving = CHECKOUTS_PER_HALVING * self.limit.max(1) as u64;
            self.halvings += 1;
        }
        let halvings = self.halvings;
        if let Some(tenant) = self.tenant_mut(key) {
            tenant.frequency = tenant.frequency_at(halvings) + 1.0;
            tenant.halvings = halvings;
        }
    }

    /// Returns a usable connection: to the tenant's next waiter, to a waiter of another tenant that has been queued for
    /// longer than [`AFFINITY`], or to the tenant's idle ones. `now` is called only if another tenant waits.
    pub(crate) fn release(&mut self, slot: SlotId, conn: C, now: impl FnOnce() -> Instant) -> Released<C> {
        let key = self.slots[slot].tenant;
        if self.is_retired(key) || self.occupied - self.closing > self.limit {
            self.vacate(slot);
            self.mark_closing(slot);
            return Released::MustClose(conn);
        }
        self.trim_queue();
        let oldest_other = self.queue.front().filter(|(head, ..)| *head != key).map(|(.., since)| *since);
        let is_overdue = oldest_other.is_some_and(|since| now().saturating_duration_since(since) >= AFFINITY);
        let declined = if is_overdue { self.offer_to_queue(slot, key, conn) } else { Offer::Declined(conn) };
        if let Offer::Declined(conn) = declined {
            self.serve_tenant(slot, key, conn);
        }
        Released::Kept
    }

    /// Gives the connection to the tenant's next waiter, else its slot to the queue, else makes it idle.
    fn serve_tenant(&mut self, slot: SlotId, key: Key, conn: C) {
        if let Some(waiter) = self.take_next_waiter(key) {
            return self.deliver(waiter, slot, Grant::Conn(slot, conn));
        }
        if let Offer::Declined(conn) = self.offer_to_queue(slot, key, conn) {
            self.slots[slot].state = State::Idle(conn);
            if let Some(tenant) = self.tenant_mut(key) {
                tenant.idle.push(slot);
            }
        }
    }

    /// Gives the slot to the first waiter in the queue. If there is none, the connection stays with its tenant.
    fn offer_to_queue(&mut self, slot: SlotId, key: Key, conn: C) -> Offer<C> {
        if self.queue.is_empty() {
            return Offer::Declined(conn);
        }
        self.vacate(slot);
        match self.assign(slot) {
            Some(waiter) => {
                self.deliver(waiter, slot, Grant::Slot(slot, Some(conn)));
                Offer::Accepted
            }
            None => {
                self.occupy(slot, key);
                Offer::Declined(conn)
            }
        }
    }

    /// Marks a connection as lent: the caller has the sqlx connection itself and returns it through its hook.
    pub(crate) fn lend(&mut self, slot: SlotId, conn: C) {
        self.slots[slot].state = State::Lent(conn);
    }

    /// Takes a lent connection out of its slot if `matches` accepts it. The slot may contain another one by now.
    pub(crate) fn take_lent(&mut self, slot: SlotId, matches: impl FnOnce(&C) -> bool) -> Option<C> {
        match std::mem::replace(&mut self.slots.get_mut(slot)?.state, State::Busy) {
            State::Lent(conn) if matches(&conn) => Some(conn),
            other => {
                self.slots[slot].state = other;
                None
            }
        }
    }

    /// Frees the slots of lent connections that `is_gone` reports as closed or detached. Returns those connections.
    pub(crate) fn sweep(&mut self, is_gone: impl Fn(&C) -> bool) -> Vec<C> {
        let is_lost = |slot: &Slot<C>| matches!(&slot.state, State::Lent(conn) if is_gone(conn));
        let slots: Vec<_> = (0..self.slots.len()).filter(|at| is_lost(&self.slots[*at])).collect();
        slots.into_iter().filter_map(|slot| self.take_lent(slot, |_| true).inspect(|_| self.abandon(slot))).collect()
    }
}
