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
use crate::directory::TenantDatabase;
use crate::names::ServerName;
use crate::pool::TenantPool;
use crate::server::DatabaseServer;
use crate::tenant::{TenantId, TenantRef};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// Names that matched no tenant, and when that expires.
    unknown_names: HashMap<TenantRef<'static>, Instant>,
    pub(super) rows: ServerRows,
    /// Number of the last [`ReadStamp`].
    last_stamp: u64,
    /// Value of `last_stamp` at the last invalidation. Reads up to this one are not stored as fresh answers.
    invalidated_up_to: u64,
}

/// Lifetime of a negative cache entry (slug or domain that matched no tenant). Short, because the name may be given to
/// a new tenant at any time.
const UNKNOWN_LIFETIME: Duration = Duration::from_secs(1);
/// Maximum number of negative cache entries.
const MAX_UNKNOWN_NAMES: usize = 4096;

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
        let (tenants, unknown_names, rows) = Default::default();
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
        let lifetime = UNKNOWN_LIFETIME.min(self.limits.fresh_for);
        if read.order <= self.invalidated_up_to || lifetime.is_zero() {
            return;
        }
        if self.unknown_names.len() >= MAX_UNKNOWN_NAMES {
            self.unknown_names.retain(|_, until| *until > read.at);
        }
        // Beyond the limit, unknown names are read from the registry each time. A flood of made-up names must not grow
        // the map.
        if self.unknown_names.len() < MAX_UNKNOWN_NAMES {
            self.unknown_names.insert(name, read.at + lifetime);
        }
    }
    /// Whether a recent read found no tenant for the name.
    pub(super) fn is_unknown(&self, name: &TenantRef<'_>, now: Instant) -> bool {
        let unknown_names: &HashMap<TenantRef<'_>, Instant> = &self.unknown_names;
        unknown_names.get(name).is_some_and(|until| *until > now)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::CredentialId;
    use crate::tenant::{Tenant, TenantStatus};
    use sqlx::postgres::PgPool;

    const FRESH: Duration = Duration::from_secs(5);

    fn cache(tenants: usize) -> Cache {
        Cache::new(CacheLimits { tenants, fresh_for: FRESH }, Instant::now())
    }

    /// A handle and its entries. The pool is lazy and never connects; tests tell pools apart by their address.
    fn loaded(slug: &str, host: &str) -> (TenantPool, Entries) {
        let tenant = Tenant::new(TenantId::new(), slug.parse().unwrap(), TenantStatus::Active);
        let (database, login) = ("d".parse().unwrap(), "l".parse().unwrap());
        let credential = CredentialId::login(tenant.id(), &database, &login, 1);
        let primary = TenantDatabase::primary(tenant.id(), host, 5432, database, login, credential);
        let pool = PgPool::connect_lazy("postgres://nowhere").unwrap();
        (TenantPool::from_pool(tenant, pool), Entries { primary, replica: None })
    }

    fn slug(text: &str) -> TenantRef<'static> {
        TenantRef::Slug(text.to_owned().into())
    }

    /// Stores the result of a load that began at `at`; returns how many handles are to be retired.
    fn resolve(cache: &mut Cache, name: &str, (pool, entries): &(TenantPool, Entries), at: Instant) -> usize {
        let read = cache.stamp(at);
        cache.keep(&slug(name), pool.clone(), entries.clone(), read).1.len()
    }

    #[tokio::test]
    async fn answer_is_fresh_for_its_lifetime_and_its_own_name_only() {
        let (mut cache, start) = (cache(9), Instant::now());
        let acme = loaded("acme", "a");
        resolve(&mut cache, "old", &acme, start);
        resolve(&mut cache, "acme", &acme, start + FRESH / 2);
        let later = start + FRESH;
        assert!(cache.names.get(&slug("acme"), later).is_some(), "the answer expired before its lifetime was over");
        assert!(cache.names.get(&slug("old"), later).is_none(), "the answer for the old slug outlived its lifetime");
        assert!(cache.names.get(&TenantRef::Domain("acme".into()), later).is_none(), "a domain matched a slug");
    }

    #[tokio::test]
    async fn set_lifetime_applies_to_answers_stored_before() {
        let (mut cache, start) = (cache(9), Instant::now());
        resolve(&mut cache, "acme", &loaded("acme", "a"), start);
        assert!(cache.names.get(&slug("acme"), start + FRESH).is_none(), "the answer outlived its lifetime");
        cache.names.set_lifetime(FRESH * 3);
        assert!(cache.names.get(&slug("acme"), start + FRESH * 2).is_some(), "the longer lifetime did not apply");
        cache.names.set_lifetime(FRESH);
        assert!(cache.names.get(&slug("acme"), start + FRESH * 2).is_none(), "the shorter lifetime did not apply");
    }

    #[tokio::test]
    async fn read_that_began_before_an_invalidation_is_not_fresh() {
        let (mut cache, now) = (cache(9), Instant::now());
        let acme = loaded("acme", "a");
        let read = cache.stamp(now);
        cache.invalidate(acme.0.tenant().id());
        cache.keep(&slug("acme"), acme.0.clone(), acme.1.clone(), read);
        assert!(cache.names.get(&slug("acme"), now).is_none(), "an invalidated read was stored as fresh");
        assert_eq!(resolve(&mut cache, "acme", &acme, now), 0, "unchanged entries must not retire the handle");
        assert!(cache.names.get(&slug("acme"), now).is_some());
        cache.invalidate(acme.0.tenant().id());
        assert!(cache.names.get(&slug("acme"), now).is_none());
    }

    #[tokio::test]
    async fn slow_read_does_not_replace_a_later_one() {
        let (mut cache, now) = (cache(9), Instant::now());
        let (pool, entry) = loaded("acme", "a");
        let mut rotated = entry.clone();
        rotated.primary.generation = crate::directory::Generation(2);
        // The read that begins last must win, even with an older generation.
        let (slow, quick) = (cache.stamp(now), cache.stamp(now));
        let new = TenantPool::from_pool(pool.tenant().clone(), PgPool::connect_lazy("postgres://new").unwrap());
        cache.keep(&slug("acme"), new, rotated.clone(), quick);
        let (kept, retired) = cache.keep(&slug("acme"), pool.clone(), entry.clone(), slow);
        assert_eq!((kept.own_pool().connect_options().get_host(), retired.len()), ("new", 0));
        let kept_later = cache.handle_for(&entry).is_none() && cache.handle_for(&rotated).is_some();
        assert!(kept_later, "a slow read replaced the entries of a later one");
        assert_eq!(resolve(&mut cache, "acme", &(pool, entry), now), 1, "a later read must win");
    }

    #[tokio::test]
    async fn adding_or_removing_a_replica_retires_the_handle() {
        let (mut cache, now) = (cache(9), Instant::now());
        let (pool, alone) = loaded("acme", "a");
        let replica = Box::new(TenantDatabase::replica_of(&alone.primary, "b", 5432));
        let both = Entries { replica: Some(replica), ..alone.clone() };
        resolve(&mut cache, "acme", &(pool.clone(), alone.clone()), now);
        assert_eq!(resolve(&mut cache, "acme", &(pool.clone(), both.clone()), now), 1, "a new replica must retire it");
        assert_eq!(resolve(&mut cache, "acme", &(pool.clone(), both), now), 0, "unchanged entries must retire nothing");
        assert_eq!(resolve(&mut cache, "acme", &(pool, alone), now), 1, "a removed replica must retire it");
    }

    #[tokio::test]
    async fn two_reads_of_the_same_entry_share_the_first_pool() {
        let (mut cache, now) = (cache(9), Instant::now());
        let (pool, entry) = loaded("acme", "a");
        resolve(&mut cache, "acme", &(pool.clone(), entry.clone()), now);
        let renamed = pool.tenant().clone().with_name("Acme Ltd");
        let second = TenantPool::from_pool(renamed.clone(), PgPool::connect_lazy("postgres://second").unwrap());
        let read = cache.stamp(now);
        let (handle, retired) = cache.keep(&slug("acme"), second, entry, read);
        assert_eq!((handle.own_pool().connect_options().get_host(), retired.len()), ("nowhere", 0));
        assert_eq!(*handle.tenant(), renamed, "the handle must show the newer record of the tenant");
    }

    #[tokio::test]
    async fn full_cache_evicts_the_least_recently_used_tenant() {
        let (mut cache, now) = (cache(3), Instant::now());
        let tick = |n: u32| now + Duration::from_millis(n.into());
        for (n, name) in ["one", "two", "far"].into_iter().enumerate() {
            assert_eq!(resolve(&mut cache, name, &loaded(name, "a"), tick(n as u32)), 0);
        }
        assert!(cache.names.get(&slug("one"), tick(3)).is_some());
        assert_eq!(resolve(&mut cache, "near", &loaded("near", "a"), tick(4)), 1);
        let has = |cache: &mut Cache, name: &str| cache.names.get(&slug(name), tick(5)).is_some();
        assert!(!has(&mut cache, "two"), "the least recently used tenant was not evicted");
        assert!(has(&mut cache, "one") && has(&mut cache, "far"), "a more recently used tenant was evicted");
        assert!(cache.names.len() == 3 && cache.len() == 3, "{} names, {} tenants", cache.names.len(), cache.len());
    }

    #[tokio::test]
    async fn mark_stale_takes_effect_once_for_callers_refused_together() {
        let (mut cache, start) = (cache(9), Instant::now());
        let tick = |n: u32| start + Duration::from_millis(n.into());
        let acme = loaded("acme", "a");
        let id = acme.0.tenant().id();
        assert!(!cache.mark_stale(id, start, start), "a tenant that is not cached cannot be marked stale");
        resolve(&mut cache, "acme", &acme, start);
        assert!(cache.mark_stale(id, tick(1), tick(3)), "the first refusal must mark the tenant stale");
        assert!(!cache.mark_stale(id, tick(2), tick(4)), "the tenant was marked stale after this refusal began");
        resolve(&mut cache, "acme", &acme, tick(5));
        assert!(!cache.mark_stale(id, tick(4), tick(6)), "the tenant was read after this refusal began");
        assert!(cache.names.get(&slug("acme"), tick(7)).is_some(), "the new answer was invalidated");
    }

    #[tokio::test]
    async fn number_of_names_is_bounded() {
        let (mut cache, now) = (cache(2), Instant::now());
        let acme = loaded("acme", "a");
        for n in 0..1000 {
            resolve(&mut cache, &format!("name-{n}"), &acme, now);
        }
        assert!(cache.names.len() <= 16, "{} names are cached for two allowed tenants", cache.names.len());
    }
}
