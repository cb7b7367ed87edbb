//! Answers by name, read without a lock: a hit costs tens of nanoseconds, however many ask.
use crate::pool::TenantPool;
use crate::pool::clock::Clock;
use crate::tenant::{TenantId, TenantRef};
use foldhash::fast::RandomState;
use papaya::{Equivalent, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// In nanoseconds.
const NOW_AND_THEN: u64 = 500_000;
/// What counts for less than this, in nanoseconds, is measured by the exact time.
const LONG: u64 = 1_000_000_000;

pub(super) struct LookupCache {
    answers: HashMap<TenantRef<'static>, Answer, RandomState>,
    /// In nanoseconds; it may change.
    fresh_for: AtomicU64,
    clock: Clock,
}

struct Answer {
    tenant: TenantId,
    /// Nanoseconds since the start, as all times here.
    at: u64,
    handle: TenantPool,
    used: Used,
}

/// When a tenant was asked for last, under whichever name: nanoseconds since the start.
#[derive(Clone, Default)]
pub(super) struct Used(Arc<AtomicU64>);
impl Used {
    pub(super) fn last(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl LookupCache {
    pub(super) fn new(fresh_for: Duration, start: Instant) -> Self {
        let answers = HashMap::with_hasher(RandomState::default());
        let this = Self { answers, fresh_for: AtomicU64::new(0), clock: Clock::new(start) };
        this.count_for(fresh_for);
        this
    }

    /// For how long answers count from now on, those included that were given before.
    pub(super) fn count_for(&self, fresh_for: Duration) {
        self.fresh_for.store(fresh_for.as_nanos().try_into().unwrap_or(u64::MAX), Relaxed);
    }

    fn counts(&self, answer: &Answer, now: u64) -> bool {
        now.saturating_sub(answer.at) < self.fresh_for.load(Relaxed)
    }

    /// The handle of a name whose last answer still counts.
    pub(super) fn hit(&self, name: &TenantRef<'_>) -> Option<TenantPool> {
        let long = self.fresh_for.load(Relaxed) >= LONG;
        self.get_at(name, if long { self.clock.coarse_now() } else { self.clock.exactly() })
    }

    fn get_at(&self, name: &TenantRef<'_>, now: u64) -> Option<TenantPool> {
        let answers = self.answers.pin();
        let answer = answers.get(&Name(name))?;
        if !self.counts(answer, now) {
            return None;
        }
        // Written now and then only: what all cores read should stay in their caches.
        if now.saturating_sub(answer.used.last()) > NOW_AND_THEN {
            answer.used.0.store(now, Relaxed);
        }
        Some(answer.handle.clone())
    }

    #[cfg(test)]
    pub(super) fn get(&self, name: &TenantRef<'_>, now: Instant) -> Option<TenantPool> {
        self.get_at(name, self.clock.at(now))
    }

    pub(super) fn mark(&self, used: &Used, now: Instant) {
        used.0.store(self.clock.at(now), Relaxed);
    }

    pub(super) fn insert(&self, name: TenantRef<'static>, handle: TenantPool, at: Instant, used: Used) {
        let answer = Answer { tenant: handle.tenant().id(), at: self.clock.at(at), handle, used };
        self.answers.pin().insert(name, answer);
    }

    pub(super) fn forget(&self, which: impl Fn(TenantId) -> bool) {
        self.answers.pin().retain(|_, answer| !which(answer.tenant));
    }

    pub(super) fn forget_expired(&self, now: Instant) {
        let now = self.clock.at(now);
        self.answers.pin().retain(|_, answer| self.counts(answer, now));
    }

    pub(super) fn clear(&self) {
        self.answers.pin().clear();
    }

    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }
}

/// A name of any lifetime, to look up an owned one by.
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
