//! Decides which caller gets which slot. It does no I/O and has no clock: `ServerPool` calls it under a mutex, passes
//! the time in, and opens and closes connections as the results say.
//!
//! A slot is the right to have one connection to the server. At most `limit` slots are occupied, except while a lowered
//! limit takes effect. A connection belongs to one tenant for its whole life; before a slot goes to another tenant, the
//! connection in it must be closed. When no slot is free, the idle connection of the least frequently used tenant is
//! evicted.
//!
//! A slot is free, or it has one owner: its tenant while its connection is idle or lent, else a guard of the server
//! pool.
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

mod checkout;
mod eviction;
mod queue;
mod slots;
mod tenants;
pub(super) use checkout::Released;
pub(super) use queue::{Added, SlotAnswer};

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
    pub(super) evictions: u64,
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
        self.tenants.get_mut(key).and_then(Option::as_mut)
    }
}
