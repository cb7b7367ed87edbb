//! Who gets which slot: pure decisions, no I/O, no clock of its own.
//!
//! A slot is the right to have one connection to the server, so what is open can never be more than there are slots. A
//! connection belongs to one tenant for its whole life; giving its slot to another one means closing it first.
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

mod queue;

/// Who waits longest in all goes before a tenant's own next one after this time.
const AFFINITY: Duration = Duration::from_millis(100);
/// A tenant's frequency is halved after so many checkouts for each slot.
const HALF_LIFE: u64 = 11;

pub(super) type Key = usize;
pub(super) type SlotId = usize;
pub(super) type WaiterId = u64;

/// What a waiter gets.
pub(super) enum Grant<C> {
    /// A connection of its own tenant.
    Conn(SlotId, C),
    /// The right to open one, after the one that is still in it was closed.
    Slot(SlotId, Option<C>),
}

/// A waiter that has passed the gate.
pub(super) enum Turn<C> {
    Slot(SlotId, Option<C>),
    /// Every slot is in use: one comes in the order of the queue.
    Queued,
    /// Nothing is to be done for it: what it waits for comes by itself, or has come.
    Granted,
}

pub(super) struct SlotScheduler<C> {
    limit: usize,
    closed: bool,
    /// Slots that are not free: no more than `limit`, but while a lowered limit is being reached.
    occupied: usize,
    /// Of them: about to be free.
    closing: usize,
    slots: Vec<Slot<C>>,
    free: Vec<SlotId>,
    tenants: Vec<Option<Tenant<C>>>,
    vacant: Vec<Key>,
    /// Waiters that have passed the gate, oldest first.
    queue: VecDeque<(Key, WaiterId, Instant)>,
    next: WaiterId,
    halvings: u32,
    until_halving: u64,
    pub(super) counts: Counts,
}

/// Since the start.
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
    /// Somebody has the connection, opens it, or closes it.
    Busy,
    /// Handed out for good: it comes back by [`SlotScheduler::returned`].
    Lent(C),
    /// Nobody's any more.
    Closing,
}

struct Tenant<C> {
    cap: usize,
    open: usize,
    /// Waiters that are on their way to a slot.
    needs_connection: usize,
    frequency: f32,
    halvings: u32,
    idle: Vec<SlotId>,
    waiters: VecDeque<Waiter<C>>,
    retired: bool,
}

struct Waiter<C> {
    id: WaiterId,
    since: Instant,
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
            next: 0,
            halvings: 0,
            until_halving: HALF_LIFE * limit.max(1) as u64,
            counts,
        }
    }

    /// A tenant that may have so many connections at once.
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

    /// Connections that a tenant has open, and how many of them are in use.
    pub(super) fn usage(&self, key: Key) -> (usize, usize) {
        let tenant = self.tenants.get(key).and_then(Option::as_ref);
        tenant.map_or((0, 0), |tenant| (tenant.open, tenant.open.saturating_sub(tenant.idle.len())))
    }

    /// Whether the tenant has as many as it may have, or there is no room for one more.
    pub(super) fn is_full(&self, key: Key) -> bool {
        let tenant = self.tenants.get(key).and_then(Option::as_ref);
        tenant.is_some_and(|tenant| tenant.open >= tenant.cap) || !self.has_room()
    }

    /// It gets nothing any more; what it has out is closed when it comes back. Returned is what is to be closed now.
    pub(super) fn retire(&mut self, key: Key) -> Vec<(SlotId, C)> {
        let Some(tenant) = self.tenant(key) else { return vec![] };
        tenant.retired = true;
        tenant.needs_connection = 0;
        tenant.waiters.clear();
        let idle = std::mem::take(&mut tenant.idle);
        idle.into_iter().filter_map(|slot| self.put_out(slot)).collect()
    }

    /// Nobody holds the key any more.
    pub(super) fn leave(&mut self, key: Key) {
        if self.tenant(key).is_some_and(|t| t.retired && t.open == 0) {
            self.tenants[key] = None;
            self.vacant.push(key);
        } else if let Some(tenant) = self.tenant(key) {
            // Its last connection vacates it.
            tenant.cap = 0;
        }
    }

    pub(super) fn is_retired(&self, key: Key) -> bool {
        self.tenants.get(key).and_then(Option::as_ref).is_none_or(|t| t.retired)
    }

    /// The connection of the tenant's that has been idle for the shortest time, if it is `fit`.
    pub(super) fn checkout(&mut self, key: Key, fit: impl FnOnce(&C) -> bool) -> Option<(SlotId, C)> {
        let slot = *self.tenant(key)?.idle.last()?;
        let state = &mut self.slots[slot].state;
        let conn = match std::mem::replace(state, State::Busy) {
            State::Idle(conn) if fit(&conn) => conn,
            other => {
                *state = other;
                return None;
            }
        };
        self.tenant(key)?.idle.pop();
        self.counts.hits += 1;
        self.count(key);
        Some((slot, conn))
    }

    /// Somebody has asked: once for each, whether it gets one at once or waits.
    fn count(&mut self, key: Key) {
        self.counts.checkouts += 1;
        self.until_halving = self.until_halving.saturating_sub(1);
        if self.until_halving == 0 {
            self.until_halving = HALF_LIFE * self.limit.max(1) as u64;
            self.halvings += 1;
        }
        let halvings = self.halvings;
        if let Some(tenant) = self.tenant(key) {
            tenant.frequency = tenant.frequency_at(halvings) + 1.0;
            tenant.halvings = halvings;
        }
    }

    /// Waits behind the tenant's others. True: nothing of it is open or on its way, so this one must open something;
    /// otherwise one that comes back soon may be cheaper than one more. `None`: it is retired.
    pub(super) fn wait(&mut self, key: Key, now: Instant, to: oneshot::Sender<Grant<C>>) -> Option<(WaiterId, bool)> {
        let id = self.next;
        self.tenant(key).filter(|t| !t.retired)?;
        self.count(key);
        let tenant = self.tenant(key)?;
        let needs_connection = tenant.open + tenant.needs_connection == 0;
        tenant.needs_connection += usize::from(needs_connection);
        tenant.waiters.push_back(Waiter { id, since: now, needs_connection, to });
        self.next += 1;
        Some((id, needs_connection))
    }

    /// It has waited long enough: whether it may open one more.
    pub(super) fn grow(&mut self, key: Key, id: WaiterId) -> bool {
        let Some(tenant) = self.tenant(key) else { return false };
        let room = tenant.open + tenant.needs_connection < tenant.cap;
        match tenant.waiters.iter_mut().find(|w| w.id == id) {
            Some(waiter) if waiter.needs_connection => true,
            Some(waiter) if room => {
                waiter.needs_connection = true;
                tenant.needs_connection += 1;
                true
            }
            _ => false,
        }
    }

    /// A waiter that may grow has passed the gate.
    pub(super) fn turn(&mut self, key: Key, id: WaiterId, now: Instant) -> Turn<C> {
        let Some(tenant) = self.tenant(key) else { return Turn::Granted };
        let full = tenant.open >= tenant.cap;
        let Some(waiter) = tenant.waiters.iter_mut().find(|w| w.id == id) else { return Turn::Granted };
        if full {
            // One of the tenant's own connections serves it, or the end of the last one promotes it.
            tenant.needs_connection -= usize::from(std::mem::take(&mut waiter.needs_connection));
            return Turn::Granted;
        }
        match self.slot() {
            Some((slot, old)) => {
                drop(self.unwait(key, id));
                self.occupy(slot, key);
                Turn::Slot(slot, old)
            }
            None => {
                self.queue.push_back((key, id, now));
                Turn::Queued
            }
        }
    }

    /// The waiter is gone. A grant that is on its way to it is its own to give back.
    pub(super) fn forget(&mut self, key: Key, id: WaiterId) {
        drop(self.unwait(key, id));
        self.promote(key);
        self.pump();
    }

    /// It comes back in order. Returned: it is to be closed, and then [`freed`](Self::freed). The time is asked for if
    /// another tenant waits.
    pub(super) fn release(&mut self, slot: SlotId, mut conn: C, now: impl FnOnce() -> Instant) -> Option<C> {
        let key = self.slots[slot].tenant;
        if self.is_retired(key) || self.occupied - self.closing > self.limit {
            self.vacate(slot);
            self.closes(slot);
            return Some(conn);
        }
        self.trim();
        let others = self.queue.front().filter(|(head, ..)| *head != key).map(|(.., since)| *since);
        if others.is_some_and(|since| now().saturating_duration_since(since) >= AFFINITY) {
            conn = self.pass_on(slot, key, conn)?;
        }
        while let Some(id) = self.tenant(key).and_then(|t| t.waiters.front().map(|w| w.id)) {
            let Some(waiter) = self.unwait(key, id) else { break };
            match waiter.to.send(Grant::Conn(slot, conn)) {
                Ok(()) => return None,
                Err(Grant::Conn(_, back) | Grant::Slot(_, Some(back))) => conn = back,
                Err(Grant::Slot(_, None)) => return None,
            }
        }
        conn = self.pass_on(slot, key, conn)?;
        self.slots[slot].state = State::Idle(conn);
        if let Some(tenant) = self.tenant(key) {
            tenant.idle.push(slot);
        }
        None
    }

    /// To whoever has waited longest in all, if anybody waits. `None`: it is given away.
    fn pass_on(&mut self, slot: SlotId, key: Key, conn: C) -> Option<C> {
        if self.queue.is_empty() {
            return Some(conn);
        }
        self.vacate(slot);
        let back = self.hand_over(slot, Some(conn))?;
        self.occupy(slot, key);
        back
    }

    /// Handed out for good.
    pub(super) fn lend(&mut self, slot: SlotId, conn: C) {
        self.slots[slot].state = State::Lent(conn);
    }

    /// What was lent is back, if `is` says that it is this one.
    pub(super) fn returned(&mut self, slot: SlotId, is: impl FnOnce(&C) -> bool) -> Option<C> {
        match std::mem::replace(&mut self.slots.get_mut(slot)?.state, State::Busy) {
            State::Lent(conn) if is(&conn) => Some(conn),
            other => {
                self.slots[slot].state = other;
                None
            }
        }
    }

    /// Slots whose connection was lent and is no more.
    pub(super) fn sweep(&mut self, is_gone: impl Fn(&C) -> bool) -> Vec<C> {
        let gone = |slot: &Slot<C>| matches!(&slot.state, State::Lent(conn) if is_gone(conn));
        let slots: Vec<_> = (0..self.slots.len()).filter(|at| gone(&self.slots[*at])).collect();
        slots.into_iter().filter_map(|slot| self.returned(slot, |_| true).inspect(|_| self.abandon(slot))).collect()
    }

    /// Nothing is open in it and nothing will be: it was not opened, or is broken.
    pub(super) fn abandon(&mut self, slot: SlotId) {
        self.vacate(slot);
        self.freed(slot);
    }

    /// Its connection is closed.
    pub(super) fn freed(&mut self, slot: SlotId) {
        if let State::Closing = std::mem::replace(&mut self.slots[slot].state, State::Free) {
            self.closing -= 1;
        }
        self.occupied -= 1;
        self.free.push(slot);
        self.pump();
    }

    /// What is idle and asked for least, if fewer slots than `reserve` are free: to be closed, and then
    /// [`freed`](Self::freed), so that who comes next need not wait for that.
    pub(super) fn spare(&mut self, reserve: usize) -> Option<(SlotId, C)> {
        if self.limit.saturating_sub(self.occupied - self.closing) >= reserve {
            return None;
        }
        let slot = self.victim()?;
        self.put_out(slot)
    }

    /// From now on at most so many. Returned is what is to be closed, and then [`freed`](Self::freed).
    pub(super) fn resize(&mut self, limit: usize) -> Vec<(SlotId, C)> {
        self.limit = limit;
        let mut out = vec![];
        while self.occupied - self.closing > self.limit {
            let Some(slot) = self.victim() else { break };
            out.extend(self.put_out(slot));
        }
        self.pump();
        out
    }

    /// Nothing is given out any more, whoever waits is told. Returned is what is to be closed.
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
    /// Whether a waiter that passes the gate now would get a slot.
    pub(super) fn has_room(&self) -> bool {
        self.occupied < self.limit || self.slots.iter().any(|s| matches!(s.state, State::Idle(_)))
    }

    fn tenant(&mut self, key: Key) -> Option<&mut Tenant<C>> {
        self.tenants.get_mut(key)?.as_mut()
    }

    /// A free slot, or that of the idle connection that is asked for least.
    fn slot(&mut self) -> Option<(SlotId, Option<C>)> {
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
        let slot = self.victim()?;
        let conn = self.evict(slot)?;
        self.counts.steals += 1;
        Some((slot, Some(conn)))
    }

    fn victim(&self) -> Option<SlotId> {
        let frequency = |slot: &Slot<C>| {
            let tenant = self.tenants.get(slot.tenant).and_then(Option::as_ref);
            tenant.map_or(0.0, |t| t.frequency_at(self.halvings))
        };
        let idle = self.slots.iter().enumerate().filter(|(_, slot)| matches!(slot.state, State::Idle(_)));
        let rated = idle.map(|(at, slot)| (at, frequency(slot)));
        rated.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(at, _)| at)
    }

    /// Takes an idle connection from its tenant.
    fn evict(&mut self, slot: SlotId) -> Option<C> {
        match std::mem::replace(&mut self.slots[slot].state, State::Busy) {
            State::Idle(conn) => {
                let key = self.slots[slot].tenant;
                if let Some(tenant) = self.tenant(key) {
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

    fn put_out(&mut self, slot: SlotId) -> Option<(SlotId, C)> {
        let conn = self.evict(slot)?;
        self.closes(slot);
        Some((slot, conn))
    }

    /// What is in it is being closed; [`freed`](Self::freed) comes next.
    pub(super) fn closes(&mut self, slot: SlotId) {
        self.slots[slot].state = State::Closing;
        self.closing += 1;
    }

    /// The slot's tenant has one less.
    pub(super) fn vacate(&mut self, slot: SlotId) {
        let key = self.slots[slot].tenant;
        self.slots[slot].state = State::Busy;
        if let Some(tenant) = self.tenant(key) {
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
        if let Some(tenant) = self.tenant(key) {
            tenant.open += 1;
        }
    }
}

impl<C> Tenant<C> {
    fn frequency_at(&self, halvings: u32) -> f32 {
        match halvings.wrapping_sub(self.halvings) {
            0 => self.frequency,
            n => self.frequency * 0.5_f32.powi(n.min(64) as i32),
        }
    }
}
