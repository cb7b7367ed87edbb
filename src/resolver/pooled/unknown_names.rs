//! Negative cache: names that matched no tenant.
//!
//! `Cache` asks it before a load begins, and clears it when any tenant changes, since one of the names may have become
//! a name of that tenant. Invariant: its size is bounded, so that a flood of made-up names cannot fill the memory.
use crate::tenant::TenantRef;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Maximum lifetime of an entry. Short, because the name may be given to a new tenant at any time.
const MAX_LIFETIME: Duration = Duration::from_secs(1);
/// Maximum number of entries.
const MAX_NAMES: usize = 4096;

pub(super) struct UnknownNames {
    /// Zero turns the cache off.
    lifetime: Duration,
    /// The names, and when each entry expires.
    expiry: HashMap<TenantRef<'static>, Instant>,
}

impl UnknownNames {
    /// `fresh_for`: lifetime of the answers for names that match a tenant. An entry lives no longer than that.
    pub(super) fn new(fresh_for: Duration) -> Self {
        Self { lifetime: MAX_LIFETIME.min(fresh_for), expiry: HashMap::new() }
    }

    /// Stores that a read at `now` found no tenant. Beyond the limit nothing is stored, and unknown names are read from
    /// the registry each time.
    pub(super) fn insert(&mut self, name: TenantRef<'static>, now: Instant) {
        if self.lifetime.is_zero() {
            return;
        }
        if self.expiry.len() >= MAX_NAMES {
            self.expiry.retain(|_, until| *until > now);
        }
        if self.expiry.len() < MAX_NAMES {
            self.expiry.insert(name, now + self.lifetime);
        }
    }

    pub(super) fn contains(&self, name: &TenantRef<'_>, now: Instant) -> bool {
        // A shorter lifetime of the key type, so that a borrowed name can be looked up.
        let expiry: &HashMap<TenantRef<'_>, Instant> = &self.expiry;
        expiry.get(name).is_some_and(|until| *until > now)
    }

    pub(super) fn clear(&mut self) {
        self.expiry.clear();
    }
}
