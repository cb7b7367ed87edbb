//! A concurrent map from tenant names (id, slug or domain) to handles, with a lifetime for each answer.
//!
//! [`PooledResolver`](super::PooledResolver) reads it without a lock, so a hit costs tens of nanoseconds however many
//! threads read. `Cache` owns it and is its only writer, under the resolver's state lock.
//!
//! Invariant: an answer is returned only while it is younger than the present lifetime. The age is that of this name's
//! own answer, not of another name of the same tenant.
use crate::pool::TenantPool;
use crate::pool::clock::Clock;
use crate::tenant::{TenantId, TenantRef};
use foldhash::fast::RandomState;
use papaya::{Equivalent, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The last use of a tenant is updated at most once in this many nanoseconds, so that the cache line stays shared
/// between cores.
const USE_RESOLUTION: u64 = 500_000;
/// From this lifetime on, in nanoseconds, answers are aged by the coarse clock, which may be 10 ms behind.
const COARSE_LIFETIME: u64 = 1_000_000_000;

pub(super) struct LookupCache {
    answers: HashMap<TenantRef<'static>, Answer, RandomState>,
    /// Lifetime of an answer in nanoseconds; see [`set_lifetime`](Self::set_lifetime).
    lifetime: AtomicU64,
    clock: Clock,
}

struct Answer {
    tenant: TenantId,
    /// When the read began that gave this answer, in nanoseconds of the cache's clock.
    at: u64,
    handle: TenantPool,
    last_use: LastUse,
}

/// When a tenant was last looked up under any of its names, in nanoseconds of the cache's clock. Its answers share it.
#[derive(Clone, Default)]
pub(super) struct LastUse(Arc<AtomicU64>);
impl LastUse {
    pub(super) fn nanoseconds(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl LookupCache {
    pub(super) fn new(lifetime: Duration, start: Instant) -> Self {
        let answers = HashMap::with_hasher(RandomState::default());
        let this = Self { answers, lifetime: AtomicU64::new(0), clock: Clock::new(start) };
        this.set_lifetime(lifetime);
        this
    }

    /// Sets the lifetime of all answers, including those that are already stored.
    pub(super) fn set_lifetime(&self, lifetime: Duration) {
        self.lifetime.store(lifetime.as_nanos().try_into().unwrap_or(u64::MAX), Relaxed);
    }

    fn is_fresh(&self, answer: &Answer, now: u64) -> bool {
        now.saturating_sub(answer.at) < self.lifetime.load(Relaxed)
    }

    /// The handle for a name whose last answer is fresh. Records the use.
    pub(super) fn lookup(&self, name: &TenantRef<'_>) -> Option<TenantPool> {
        let may_be_coarse = self.lifetime.load(Relaxed) >= COARSE_LIFETIME;
        self.lookup_at(name, if may_be_coarse { self.clock.coarse_now() } else { self.clock.exact_now() })
    }

    fn lookup_at(&self, name: &TenantRef<'_>, now: u64) -> Option<TenantPool> {
        let answers = self.answers.pin();
        let answer = answers.get(&Name(name))?;
        if !self.is_fresh(answer, now) {
            return None;
        }
        if now.saturating_sub(answer.last_use.nanoseconds()) > USE_RESOLUTION {
            answer.last_use.0.store(now, Relaxed);
        }
        Some(answer.handle.clone())
    }

    #[cfg(test)]
    pub(super) fn get(&self, name: &TenantRef<'_>, now: Instant) -> Option<TenantPool> {
        self.lookup_at(name, self.clock.nanoseconds_at(now))
    }

    pub(super) fn record_use(&self, last_use: &LastUse, now: Instant) {
        last_use.0.store(self.clock.nanoseconds_at(now), Relaxed);
    }

    /// Stores the answer for a name. `at` is when its read began.
    pub(super) fn insert(&self, name: TenantRef<'static>, handle: TenantPool, at: Instant, last_use: LastUse) {
        let answer = Answer { tenant: handle.tenant().id(), at: self.clock.nanoseconds_at(at), handle, last_use };
        self.answers.pin().insert(name, answer);
    }

    /// Removes all names of the tenants that `which` selects.
    pub(super) fn forget(&self, which: impl Fn(TenantId) -> bool) {
        self.answers.pin().retain(|_, answer| !which(answer.tenant));
    }

    pub(super) fn forget_expired(&self, now: Instant) {
        let now = self.clock.nanoseconds_at(now);
        self.answers.pin().retain(|_, answer| self.is_fresh(answer, now));
    }

    pub(super) fn clear(&self) {
        self.answers.pin().clear();
    }

    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }
}

/// A borrowed name of any lifetime as a lookup key for the owned names of the map.
struct Name<'a, 'b>(&'a TenantRef<'b>);
impl Hash for Name<'_, '_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl Equivalent<TenantRef<'static>> for Name<'_, '_> {
    fn equivalent(&self, name: &TenantRef<'static>) -> bool {
        self.0 == name
    }
}
