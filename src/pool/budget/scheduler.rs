//! Decides which caller gets which slot. It does no I/O and has no clock: `ServerPool` calls it under a mutex, passes
//! the time in, and opens and closes connections as the results say.
//!
//! A slot is the right to have one connection to the server. At most `limit` slots are occupied, except while a lowered
//! limit takes effect. A connection belongs to one tenant for its whole life; before a slot goes to another tenant, the
//! connection in it must be closed. When no slot is free, the idle connection of the least frequently used tenant is
//! evicted.
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

mod eviction;
mod queue;

/// A returned connection goes to its own tenant's next waiter, unless a waiter of another tenant has been queued for
/// longer than this.
const AFFINITY: Duration = Duration::from_millis(100);
/// All tenants' frequencies are halved after this many checkouts per slot.
const CHECKOUTS_PER_HALVING: u64 = 11;

pub(super) type Key = usize;
pub(super) type SlotId = usize;
pub(super) type WaiterId = u64;

/// What a waiter receives.
pub(super) enum Grant<C> {
    /// A connection of the waiter's own tenant.
    Conn(SlotId, C),
    /// A slot to open a connection in. If it contains another tenant's connection, the waiter must close that first.
    Slot(SlotId, Option<C>),
}

/// The answer to [`SlotScheduler::request_slot`].
pub(super) enum SlotAnswer<C> {
    /// As [`Grant::Slot`].
    Slot(SlotId, Option<C>),
    /// Every slot is in use. The waiter is in the queue and receives a grant when its turn comes.
    Queued,
    /// A grant is already on its way, or the tenant is at its cap and a returned connection will be granted.
    AwaitGrant,
}

pub(super) struct SlotScheduler<C> {
    limit: usize,
    closed: bool,
    /// Slots that are not free. More than `limit` only while a lowered limit takes effect.
    occupied: usize,
    /// Occupied slots whose connection is being closed.
    closing: usize,
    slots: Vec<Slot<C>>,
    free: Vec<SlotId>,
    tenants: Vec<Option<Tenant<C>>>,
    /// Keys of tenants that have left, for reuse.
    vacant: Vec<Key>,
    /// Waiters that may open a connection and need a slot for it, in the order in which they may.
    queue: VecDeque<(Key, WaiterId, Instant)>,
    next_waiter: WaiterId,
    /// How often all frequencies were halved. Each tenant applies the halvings when its frequency is next used.
    halvings: u32,
    /// Checkouts until the next halving.
    until_halving: u64,
    pub(super) counts: Counts,
}

/// Counters since the start; see [`PoolStats`](super::PoolStats).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) checkouts: u64,
    pub(super) hits: u64,
    pub(super) steals: u64,
}

struct Slot<C> {
    tenant: Key,
    state: State<C>,
}

enum State<C> {
    Free,
    Idle(C),
    /// A caller uses the connection, or is opening or closing it.
    Busy,
    /// A caller has the sqlx connection itself. It is returned through [`SlotScheduler::take_lent`].
    Lent(C),
    /// The connection is being closed and belongs to no tenant any more.
    Closing,
}

struct Tenant<C> {
    /// Maximum connections.
    cap: usize,
    /// Slots that the tenant occupies.
    open: usize,
    /// How many of `waiters` are to open a connection.
    needs_connection: usize,
    /// Checkouts, halved now and then so that old ones lose weight; valid as of `halvings`.
    frequency: f32,
    halvings: u32,
    /// Slots with idle connections, the most recently returned last.
    idle: Vec<SlotId>,
    /// In order of arrival.
    waiters: VecDeque<Waiter<C>>,
    retired: bool,
}

struct Waiter<C> {
    id: WaiterId,
    since: Instant,
    /// Whether the waiter is to open a connection. Otherwise it waits for one of its tenant's to be returned.
    needs_connection: bool,
    to: oneshot::Sender<Grant<C>>,
}

impl<C> SlotScheduler<C> {
    pub(super) fn new(limit: usize) -> Self {
        let (slots, free, tenants, vacant, queue) = Default::default();
        let counts = Counts::default();
        Self {
            limit,
            closed: false,
            occupied: 0,
            closing: 0,
            slots,
            free,
            tenants,
            vacant,
            queue,
            next_waiter: 0,
            halvings: 0,
            until_halving: CHECKOUTS_PER_HALVING * limit.max(1) as u64,
            counts,
        }
    }

    /// Adds a tenant that may have at most `cap` connections.
    pub(super) fn join(&mut self, cap: usize) -> Key {
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
    pub(super) fn usage(&self, key: Key) -> (usize, usize) {
        let tenant = self.tenants.get(key).and_then(Option::as_ref);
        tenant.map_or((0, 0), |tenant| (tenant.open, tenant.open.saturating_sub(tenant.idle.len())))
    }

    /// Whether the tenant is at its cap, or no slot is free or can be freed by an eviction.
    pub(super) fn is_full(&self, key: Key) -> bool {
        let tenant = self.tenants.get(key).and_then(Option::as_ref);
        tenant.is_some_and(|tenant| tenant.open >= tenant.cap) || !self.has_room()
    }

    /// Stops serving a tenant. Its waiters receive nothing; their channel closes. Returns its idle connections, which
    /// the caller must close and then [`free`](Self::free_slot). Connections in use are returned for closing by
    /// [`release`](Self::release).
    pub(super) fn retire(&mut self, key: Key) -> Vec<(SlotId, C)> {
        let Some(tenant) = self.tenant_mut(key) else { return vec![] };
        tenant.retired = true;
        tenant.needs_connection = 0;
        tenant.waiters.clear();
        let idle = std::mem::take(&mut tenant.idle);
        idle.into_iter().filter_map(|slot| self.evict_to_close(slot)).collect()
    }

    /// Releases the key of a retired tenant, at once or when its last connection is closed. The key may be reused.
    pub(super) fn leave(&mut self, key: Key) {
        if self.tenant_mut(key).is_some_and(|t| t.retired && t.open == 0) {
            self.tenants[key] = None;
            self.vacant.push(key);
        } else if let Some(tenant) = self.tenant_mut(key) {
            // A cap of zero makes `vacate` release the key with the last connection.
            tenant.cap = 0;
        }
    }

    pub(super) fn is_retired(&self, key: Key) -> bool {
        self.tenants.get(key).and_then(Option::as_ref).is_none_or(|t| t.retired)
    }

    /// Takes the tenant's connection that has been idle for the shortest time, if `is_usable` accepts it.
    pub(super) fn checkout(&mut self, key: Key, is_usable: impl FnOnce(&C) -> bool) -> Option<(SlotId, C)> {
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
    fn record_checkout(&mut self, key: Key) {
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

    /// Adds a waiter behind the tenant's other waiters. The flag is true if no connection of the tenant is open or on
    /// its way: this waiter must open one. Otherwise it should first wait a little, since a returned connection is
    /// cheaper than a new one. `None`: the tenant is retired.
    pub(super) fn add_waiter(
        &mut self, key: Key, now: Instant, to: oneshot::Sender<Grant<C>>,
    ) -> Option<(WaiterId, bool)> {
        let id = self.next_waiter;
        self.tenant_mut(key).filter(|t| !t.retired)?;
        self.record_checkout(key);
        let tenant = self.tenant_mut(key)?;
        let needs_connection = tenant.open + tenant.needs_connection == 0;
        tenant.needs_connection += usize::from(needs_connection);
        tenant.waiters.push_back(Waiter { id, since: now, needs_connection, to });
        self.next_waiter += 1;
        Some((id, needs_connection))
    }

    /// Marks a waiter as one that is to open a connection. False if the tenant's cap does not allow one more, or if the
    /// waiter was served.
    pub(super) fn mark_needs_connection(&mut self, key: Key, id: WaiterId) -> bool {
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
    pub(super) fn request_slot(&mut self, key: Key, id: WaiterId, now: Instant) -> SlotAnswer<C> {
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
    pub(super) fn remove_waiter(&mut self, key: Key, id: WaiterId) {
        drop(self.take_waiter(key, id));
        self.promote(key);
        self.serve_queue();
    }

    /// Returns a usable connection: to the tenant's next waiter, to a waiter of another tenant that has been queued for
    /// longer than [`AFFINITY`], or to the tenant's idle ones. `Some`: the tenant is retired or the limit was lowered;
    /// the caller must close the connection and then [`free`](Self::free_slot) its slot. `now` is called only if
    /// another tenant waits.
    pub(super) fn release(&mut self, slot: SlotId, mut conn: C, now: impl FnOnce() -> Instant) -> Option<C> {
        let key = self.slots[slot].tenant;
        if self.is_retired(key) || self.occupied - self.closing > self.limit {
            self.vacate(slot);
            self.mark_closing(slot);
            return Some(conn);
        }
        self.trim_queue();
        let oldest_other = self.queue.front().filter(|(head, ..)| *head != key).map(|(.., since)| *since);
        if oldest_other.is_some_and(|since| now().saturating_duration_since(since) >= AFFINITY) {
            conn = self.offer_to_queue(slot, key, conn)?;
        }
        while let Some(id) = self.tenant_mut(key).and_then(|t| t.waiters.front().map(|w| w.id)) {
            let Some(waiter) = self.take_waiter(key, id) else { break };
            match waiter.to.send(Grant::Conn(slot, conn)) {
                Ok(()) => return None,
                Err(Grant::Conn(_, back) | Grant::Slot(_, Some(back))) => conn = back,
                Err(Grant::Slot(_, None)) => return None,
            }
        }
        conn = self.offer_to_queue(slot, key, conn)?;
        self.slots[slot].state = State::Idle(conn);
        if let Some(tenant) = self.tenant_mut(key) {
            tenant.idle.push(slot);
        }
        None
    }

    /// Gives the slot to the first waiter in the queue. `None`: a waiter has it. `Some`: no waiter takes it, and the
    /// connection stays with its tenant.
    fn offer_to_queue(&mut self, slot: SlotId, key: Key, conn: C) -> Option<C> {
        if self.queue.is_empty() {
            return Some(conn);
        }
        self.vacate(slot);
        let back = self.hand_over(slot, Some(conn))?;
        self.occupy(slot, key);
        back
    }

    /// Marks a connection as lent: the caller has the sqlx connection itself and returns it through its hook.
    pub(super) fn lend(&mut self, slot: SlotId, conn: C) {
        self.slots[slot].state = State::Lent(conn);
    }

    /// Takes a lent connection out of its slot if `matches` accepts it. The slot may contain another one by now.
    pub(super) fn take_lent(&mut self, slot: SlotId, matches: impl FnOnce(&C) -> bool) -> Option<C> {
        match std::mem::replace(&mut self.slots.get_mut(slot)?.state, State::Busy) {
            State::Lent(conn) if matches(&conn) => Some(conn),
            other => {
                self.slots[slot].state = other;
                None
            }
        }
    }

    /// Frees the slots of lent connections that `is_gone` reports as closed or detached. Returns those connections.
    pub(super) fn sweep(&mut self, is_gone: impl Fn(&C) -> bool) -> Vec<C> {
        let is_lost = |slot: &Slot<C>| matches!(&slot.state, State::Lent(conn) if is_gone(conn));
        let slots: Vec<_> = (0..self.slots.len()).filter(|at| is_lost(&self.slots[*at])).collect();
        slots.into_iter().filter_map(|slot| self.take_lent(slot, |_| true).inspect(|_| self.abandon(slot))).collect()
    }

    /// Frees a slot without an open connection: opening failed, or the connection broke.
    pub(super) fn abandon(&mut self, slot: SlotId) {
        self.vacate(slot);
        self.free_slot(slot);
    }

    /// Frees a slot after its connection was closed, and serves the queue. The slot must be vacated.
    pub(super) fn free_slot(&mut self, slot: SlotId) {
        if let State::Closing = std::mem::replace(&mut self.slots[slot].state, State::Free) {
            self.closing -= 1;
        }
        self.occupied -= 1;
        self.free.push(slot);
        self.serve_queue();
    }

    /// Evicts the idle connection of the least frequently used tenant if fewer than `reserve` slots are free or about
    /// to be. The caller must close it and then [`free`](Self::free_slot) its slot. Later callers then find a free slot
    /// and need not wait for a connection to close.
    pub(super) fn evict_for_reserve(&mut self, reserve: usize) -> Option<(SlotId, C)> {
        if self.limit.saturating_sub(self.occupied - self.closing) >= reserve {
            return None;
        }
        let slot = self.find_victim()?;
        self.evict_to_close(slot)
    }

    /// Changes the limit. Returns surplus idle connections, which the caller must close and then
    /// [`free`](Self::free_slot).
    pub(super) fn resize(&mut self, limit: usize) -> Vec<(SlotId, C)> {
        self.limit = limit;
        let mut evicted = vec![];
        while self.occupied - self.closing > self.limit {
            let Some(slot) = self.find_victim() else { break };
            evicted.extend(self.evict_to_close(slot));
        }
        self.serve_queue();
        evicted
    }

    /// Retires all tenants, and each tenant that joins later. Returns all idle connections, for the caller to close.
    pub(super) fn close(&mut self) -> Vec<(SlotId, C)> {
        self.closed = true;
        self.queue.clear();
        (0..self.tenants.len()).flat_map(|key| self.retire(key)).collect()
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }
    pub(super) fn occupied(&self) -> usize {
        self.occupied
    }
    pub(super) fn idle(&self) -> usize {
        self.slots.iter().filter(|s| matches!(s.state, State::Idle(_))).count()
    }
    pub(super) fn waiting(&self) -> usize {
        self.tenants.iter().flatten().map(|t| t.waiters.len()).sum()
    }
    /// Whether [`request_slot`](Self::request_slot) would find a slot now.
    pub(super) fn has_room(&self) -> bool {
        self.occupied < self.limit || self.slots.iter().any(|s| matches!(s.state, State::Idle(_)))
    }

    fn tenant_mut(&mut self, key: Key) -> Option<&mut Tenant<C>> {
        self.tenants.get_mut(key)?.as_mut()
    }

    /// Occupies a free slot, or the slot of the idle connection whose tenant is least frequently used. That connection
    /// is returned for the caller to close.
    fn take_slot(&mut self) -> Option<(SlotId, Option<C>)> {
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
        self.counts.steals += 1;
        Some((slot, Some(conn)))
    }

    /// Marks the slot as closing. [`free_slot`](Self::free_slot) must follow.
    pub(super) fn mark_closing(&mut self, slot: SlotId) {
        self.slots[slot].state = State::Closing;
        self.closing += 1;
    }

    /// Takes the slot away from its tenant, and promotes a waiter if that was the tenant's last connection.
    pub(super) fn vacate(&mut self, slot: SlotId) {
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

    fn occupy(&mut self, slot: SlotId, key: Key) {
        self.slots[slot].tenant = key;
        if let Some(tenant) = self.tenant_mut(key) {
            tenant.open += 1;
        }
    }
}

impl<C> Tenant<C> {
    /// The tenant's checkout frequency after the halvings that it has not applied yet.
    fn frequency_at(&self, halvings: u32) -> f32 {
        match halvings.wrapping_sub(self.halvings) {
            0 => self.frequency,
            n => self.frequency * 0.5_f32.powi(n.min(64) as i32),
        }
    }
}
