//! What the resolver knows: tenants and their handles, names, unknown names and server rows. It does no I/O and has no
//! clock.
//!
//! [`PooledResolver`](super::PooledResolver) uses it under its state lock. Each load takes a [`ReadStamp`] before it
//! reads anything and passes it to [`Cache::keep`] with the result.
//!
//! Invariants: a slow read never replaces the result of a read that began later, and what was read before an
//! invalidation is never returned as fresh. Every handle that leaves the cache is returned to the caller, which must
//! retire it.
use super::lookup_cache::{LastUse, LookupCache};
use super::unknown_names::UnknownNames;
use crate::directory::TenantDatabase;
use crate::names::ServerName;
use crate::pool::TenantPool;
use crate::server::DatabaseServer;
use crate::tenant::{TenantId, TenantRef};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// Identifies a read of the registry: its number, in the order in which reads began, and the time when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReadStamp {
    order: u64,
    at: Instant,
}

#[derive(Clone, Copy)]
pub(super) struct CacheLimits {
    /// Maximum number of tenants.
    pub(super) tenants: usize,
    /// Lifetime of an answer; [`LookupCache::set_lifetime`] may change it later.
    pub(super) fresh_for: Duration,
}

pub(super) type ServerRows = HashMap<ServerName, (ReadStamp, DatabaseServer)>;

pub(super) struct Cache {
    limits: CacheLimits,
    tenants: HashMap<TenantId, CachedTenant>,
    /// Names and their answers. Each name has a lifetime of its own: a slug or domain may have been given to another
    /// tenant, however recently the old one was read under its id. Written only under the lock of this cache.
    names: Arc<LookupCache>,
    unknown_names: UnknownNames,
    pub(super) rows: ServerRows,
    /// Number of the last [`ReadStamp`].
    last_stamp: u64,
    /// Value of `last_stamp` at the last invalidation. Reads up to this one are not stored as fresh answers.
    invalidated_up_to: u64,
}

/// A tenant's directory entries, with their server's address. The tenant's connections are replaced when these change.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entries {
    pub(super) primary: TenantDatabase,
    /// The standby that reads go to. Boxed, because most tenants have none.
    pub(super) replica: Option<Box<TenantDatabase>>,
}

struct CachedTenant {
    handle: TenantPool,
    entries: Entries,
    read: ReadStamp,
    /// When the tenant was last read or [marked stale](Cache::mark_stale).
    checked_at: Instant,
    last_use: LastUse,
}

impl Cache {
    pub(super) fn new(limits: CacheLimits, start: Instant) -> Self {
        let names = Arc::new(LookupCache::new(limits.fresh_for, start));
        let unknown_names = UnknownNames::new(limits.fresh_for);
        let (tenants, rows) = Default::default();
        Self { limits, tenants, names, unknown_names, rows, last_stamp: 0, invalidated_up_to: 0 }
    }

    /// The names, for lookups without the lock of this cache.
    pub(super) fn names(&self) -> Arc<LookupCache> {
        self.names.clone()
    }

    /// Stamps a read that begins now. Must be called before the read.
    pub(super) fn stamp(&mut self, at: Instant) -> ReadStamp {
        self.last_stamp += 1;
        ReadStamp { order: self.last_stamp, at }
    }

    /// The cached handle of the entries' tenant, if it was built from exactly these entries.
    pub(super) fn handle_for(&self, entries: &Entries) -> Option<&TenantPool> {
        let cached = self.tenants.get(&entries.primary.tenant)?;
        (cached.entries == *entries).then_some(&cached.handle)
    }

    /// Stores the result of a read. Returns the handle to use, and handles that the caller must retire.
    ///
    /// The handle is the one of a later read if there is one, else the cached one if the entries have not changed, else
    /// `loaded`.
    pub(super) fn keep(
        &mut self, name: &TenantRef<'static>, loaded: TenantPool, entries: Entries, read: ReadStamp,
    ) -> (TenantPool, Vec<TenantPool>) {
        let id = loaded.tenant().id();
        // `loaded` needs no retirement: dropping its last handle closes its connections.
        if let Some(newer) = self.tenants.get(&id).filter(|cached| cached.read > read) {
            return (newer.handle.clone(), vec![]);
        }
        let unchanged = self.handle_for(&entries).map(|cached| cached.for_tenant(loaded.tenant()));
        let replaces = unchanged.is_none();
        let handle = unchanged.unwrap_or(loaded);
        let last_use = self.tenants.get(&id).map(|cached| cached.last_use.clone()).unwrap_or_default();
        self.names.record_use(&last_use, read.at);
        let cached =
            CachedTenant { handle: handle.clone(), entries, read, checked_at: read.at, last_use: last_use.clone() };
        let replaced = self.tenants.insert(id, cached).filter(|_| replaces);
        if replaced.is_some() {
            // The tenant's other names still answer with the handle that is about to be retired.
            self.names.forget(|of| of == id);
        }
        if read.order > self.invalidated_up_to {
            self.names.insert(name.clone(), handle.clone(), read.at, last_use);
        }
        let mut retired: Vec<_> = replaced.map(|cached| cached.handle).into_iter().collect();
        self.evict(id, &mut retired);
        self.trim_names(read.at);
        (handle, retired)
    }

    /// Removes a tenant. The caller must retire the handle that is returned.
    pub(super) fn forget(&mut self, tenant: TenantId) -> Option<TenantPool> {
        self.names.forget(|of| of == tenant);
        self.tenants.remove(&tenant).map(|cached| cached.handle)
    }

    /// Stores that a read found no tenant for a name. Ignored if the names were invalidated after that read began.
    pub(super) fn keep_unknown(&mut self, name: TenantRef<'static>, read: ReadStamp) {
        if read.order > self.invalidated_up_to {
            self.unknown_names.insert(name, read.at);
        }
    }
    /// Whether a recent read found no tenant for the name.
    pub(super) fn is_unknown(&self, name: &TenantRef<'_>, now: Instant) -> bool {
        self.unknown_names.contains(name, now)
    }

    /// The cached tenants whose entries `which` selects.
    pub(super) fn tenants_where(&self, which: impl Fn(&Entries) -> bool) -> Vec<TenantId> {
        self.tenants.iter().filter(|(_, cached)| which(&cached.entries)).map(|(id, _)| *id).collect()
    }
    pub(super) fn has_tenant(&self, tenant: TenantId) -> bool {
        self.tenants.contains_key(&tenant)
    }

    /// Makes the next lookup of the tenant read the registry. The handle stays and is used again if its entries have
    /// not changed. Unknown names are cleared too, since one of them may have become a name of this tenant.
    pub(super) fn invalidate(&mut self, tenant: TenantId) {
        self.invalidated_up_to = self.last_stamp;
        self.unknown_names.clear();
        self.names.forget(|of| of == tenant);
    }

    /// [`invalidate`](Self::invalidate) for all tenants.
    pub(super) fn invalidate_all(&mut self) {
        self.invalidated_up_to = self.last_stamp;
        self.unknown_names.clear();
        self.names.clear();
    }

    /// Invalidates a tenant whose login, as known at `since`, was refused by the server. False, without effect, if the
    /// tenant was read or marked stale after `since`: many callers are refused at once, and one new read serves them
    /// all.
    pub(super) fn mark_stale(&mut self, tenant: TenantId, since: Instant, now: Instant) -> bool {
        match self.tenants.get_mut(&tenant).filter(|cached| cached.checked_at <= since) {
            Some(cached) => cached.checked_at = now,
            None => return false,
        }
        self.invalidate(tenant);
        true
    }

    /// Empties the cache. The caller must retire the handles that are returned.
    pub(super) fn drain(&mut self) -> Vec<TenantPool> {
        self.unknown_names.clear();
        self.names.clear();
        self.tenants.drain().map(|(_, cached)| cached.handle).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.tenants.len()
    }

    /// Removes the least recently used tenants, but never `newest`, if there are too many. Pushes their handles to
    /// `retired`.
    fn evict(&mut self, newest: TenantId, retired: &mut Vec<TenantPool>) {
        if self.tenants.len() <= self.limits.tenants {
            return;
        }
        let mut by_use: Vec<_> = self.tenants.iter().map(|(id, cached)| (cached.last_use.nanoseconds(), *id)).collect();
        by_use.sort_unstable();
        // Evict a sixteenth at once: a full cache would otherwise be sorted again for each new tenant.
        let count = 1 + self.limits.tenants / 16;
        let victims: HashSet<_> = by_use.into_iter().map(|(_, id)| id).filter(|id| *id != newest).take(count).collect();
        self.names.forget(|tenant| victims.contains(&tenant));
        retired.extend(victims.iter().filter_map(|id| self.tenants.remove(id)).map(|cached| cached.handle));
    }

    /// Bounds the number of names, since a tenant may have any number of them. Removes expired names above four per
    /// allowed tenant, and all names above eight.
    fn trim_names(&mut self, now: Instant) {
        if self.names.len() > self.limits.tenants.saturating_mul(4) {
            self.names.forget_expired(now);
        }
        if self.names.len() > self.limits.tenants.saturating_mul(8) {
            self.names.clear();
        }
    }
}
