//! Answers by name, read without a lock: a hit costs tens of nanoseconds, however many ask.
use super::super::TenantPool;
use crate::tenant::{TenantId, TenantRef};
use foldhash::fast::RandomState;
use papaya::{Equivalent, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub(super) struct Names {
    answers: HashMap<TenantRef<'static>, Answer, RandomState>,
    /// In nanoseconds; it may change.
    fresh_for: AtomicU64,
    start: Instant,
}

struct Answer {
    tenant: TenantId,
    at: Instant,
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

impl Names {
    pub(super) fn new(fresh_for: Duration, start: Instant) -> Self {
        let this = Self { answers: HashMap::with_hasher(RandomState::default()), fresh_for: AtomicU64::new(0), start };
        this.count_for(fresh_for);
        this
    }

    /// For how long answers count from now on, those included that were given before.
    pub(super) fn count_for(&self, fresh_for: Duration) {
        self.fresh_for.store(fresh_for.as_nanos().try_into().unwrap_or(u64::MAX), Relaxed);
    }

    fn counts(&self, answer: &Answer, now: Instant) -> bool {
        now.saturating_duration_since(answer.at).as_nanos() < u128::from(self.fresh_for.load(Relaxed))
    }

    /// The handle of a name whose last answer still counts.
    pub(super) fn get(&self, name: &TenantRef<'_>, now: Instant) -> Option<TenantPool> {
        let answers = self.answers.pin();
        let answer = answers.get(&Name(name))?;
        if !self.counts(answer, now) {
            return None;
        }
        self.mark(&answer.used, now);
        Some(answer.handle.clone())
    }

    pub(super) fn mark(&self, used: &Used, now: Instant) {
        used.0.store(now.saturating_duration_since(self.start).as_nanos() as u64, Relaxed);
    }

    pub(super) fn insert(&self, name: TenantRef<'static>, handle: TenantPool, at: Instant, used: Used) {
        let answer = Answer { tenant: handle.tenant().id(), at, handle, used };
        self.answers.pin().insert(name, answer);
    }

    pub(super) fn forget(&self, which: impl Fn(TenantId) -> bool) {
        self.answers.pin().retain(|_, answer| !which(answer.tenant));
    }

    pub(super) fn forget_expired(&self, now: Instant) {
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
