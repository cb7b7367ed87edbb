//! What is known, in memory alone: no I/O, and time comes from outside.
//!
//! Each cold path takes a ticket before it reads anything. By tickets a slow read never replaces a newer one, and what
//! was read before an invalidation does not count as fresh.
use super::lookup_cache::{LookupCache, Used};
use crate::directory::TenantDatabase;
use crate::names::ServerName;
use crate::pool::TenantPool;
use crate::server::DatabaseServer;
use crate::tenant::{TenantId, TenantRef};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Which read, in the order in which they began, and when it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReadStamp {
    order: u64,
    at: Instant,
}

#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) pools: usize,
    pub(super) fresh_for: Duration,
}

pub(super) type Rows = HashMap<ServerName, (ReadStamp, DatabaseServer)>;

pub(super) struct Cache {
    limits: Limits,
    pools: HashMap<TenantId, Known>,
    /// Each name is as fresh as its own last answer: a slug or domain may have become another tenant's, however often
    /// this tenant was asked for by id.
    /// Written under this cache's own lock alone.
    names: Arc<LookupCache>,
    /// Names that were nobody's, and until when that counts. Few, and not for long: somebody may be given one.
    nobody: HashMap<TenantRef<'static>, Instant>,
    pub(super) rows: Rows,
    /// How many tickets there were, and how many there were at the last invalidation.
    last: u64,
    invalidated: u64,
}

/// For how long a name is nobody's without being asked for again, and of how many that is remembered.
const NOBODY: Duration = Duration::from_secs(1);
const NOBODIES: usize = 4096;

/// Where a tenant is: while these stay the same, so do its connections.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entries {
    pub(super) primary: TenantDatabase,
    /// Boxed, since most tenants have none.
    pub(super) replica: Option<Box<TenantDatabase>>,
}

struct Known {
    handle: TenantPool,
    entries: Entries,
    read: ReadStamp,
    /// When it was last read or doubted.
    judged: Instant,
    used: Used,
}

impl Cache {
    pub(super) fn new(limits: Limits, start: Instant) -> Self {
        let names = Arc::new(LookupCache::new(limits.fresh_for, start));
        let (pools, nobody, rows) = Default::default();
        Self { limits, pools, names, nobody, rows, last: 0, invalidated: 0 }
    }

    /// What is answered without this cache's lock.
    pub(super) fn names(&self) -> Arc<LookupCache> {
        self.names.clone()
    }

    pub(super) fn stamp(&mut self, at: Instant) -> ReadStamp {
        self.last += 1;
        ReadStamp { order: self.last, at }
    }

    /// The handle that is there for just these entries.
    pub(super) fn of_entries(&self, entries: &Entries) -> Option<&TenantPool> {
        self.pools.get(&entries.primary.tenant).filter(|known| known.entries == *entries).map(|known| &known.handle)
    }

    /// Keeps what a read found; returns the handle that counts, and what is to be closed.
    pub(super) fn keep(
        &mut self, name: &TenantRef<'static>, found: TenantPool, entries: Entries, read: ReadStamp,
    ) -> (TenantPool, Vec<TenantPool>) {
        let id = found.tenant().id();
        // What `found` holds was never connected, or is on its way out already.
        if let Some(newer) = self.pools.get(&id).filter(|known| known.read > read) {
            return (newer.handle.clone(), vec![]);
        }
        let same = self.of_entries(&entries).map(|known| known.of(found.tenant()));
        let replaces = same.is_none();
        let handle = same.unwrap_or(found);
        let used = self.pools.get(&id).map(|known| known.used.clone()).unwrap_or_default();
        self.names.mark(&used, read.at);
        let known = Known { handle: handle.clone(), entries, read, judged: read.at, used: used.clone() };
        let before = self.pools.insert(id, known).filter(|_| replaces);
        if before.is_some() {
            // Its other names lead to what is retired now.
            self.names.forget(|of| of == id);
        }
        if read.order > self.invalidated {
            self.names.insert(name.clone(), handle.clone(), read.at, used);
        }
        let mut retired: Vec<_> = before.map(|known| known.handle).into_iter().collect();
        self.evict(id, &mut retired);
        self.trim_names(read.at);
        (handle, retired)
    }

    /// Forgets a tenant; what is returned is to be closed.
    pub(super) fn forget(&mut self, tenant: TenantId) -> Option<TenantPool> {
        self.names.forget(|of| of == tenant);
        self.pools.remove(&tenant).map(|known| known.handle)
    }

    /// A read has found that a name is nobody's.
    pub(super) fn keep_nobody(&mut self, name: TenantRef<'static>, read: ReadStamp) {
        let counts = NOBODY.min(self.limits.fresh_for);
        if read.order <= self.invalidated || counts.is_zero() {
            return;
        }
        if self.nobody.len() >= NOBODIES {
            self.nobody.retain(|_, until| *until > read.at);
        }
        // Whoever asks for very many names at once gets them read: nothing grows for it.
        if self.nobody.len() < NOBODIES {
            self.nobody.insert(name, read.at + counts);
        }
    }
    pub(super) fn is_nobody(&self, name: &TenantRef<'_>, now: Instant) -> bool {
        let nobody: &HashMap<TenantRef<'_>, Instant> = &self.nobody;
        nobody.get(name).is_some_and(|until| *until > now)
    }

    /// Those whose connections are known by entries like these.
    pub(super) fn tenants(&self, which: impl Fn(&Entries) -> bool) -> Vec<TenantId> {
        self.pools.iter().filter(|(_, known)| which(&known.entries)).map(|(id, _)| *id).collect()
    }
    pub(super) fn knows(&self, tenant: TenantId) -> bool {
        self.pools.contains_key(&tenant)
    }

    /// What was asked about it before counts no more; its pool stays, and serves again if nothing has changed.
    pub(super) fn invalidate(&mut self, tenant: TenantId) {
        self.invalidated = self.last;
        self.nobody.clear();
        self.names.forget(|of| of == tenant);
    }

    /// The same for all.
    pub(super) fn invalidate_all(&mut self) {
        self.invalidated = self.last;
        self.nobody.clear();
        self.names.clear();
    }

    /// The same for whoever was refused with what was known then. False if somebody looked or doubted since: many are
    /// refused at once, and one look is enough.
    pub(super) fn mark_stale(&mut self, tenant: TenantId, since: Instant, now: Instant) -> bool {
        match self.pools.get_mut(&tenant).filter(|known| known.judged <= since) {
            Some(known) => known.judged = now,
            None => return false,
        }
        self.invalidate(tenant);
        true
    }

    pub(super) fn drain(&mut self) -> Vec<TenantPool> {
        self.nobody.clear();
        self.names.clear();
        self.pools.drain().map(|(_, known)| known.handle).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.pools.len()
    }

    fn evict(&mut self, newest: TenantId, retired: &mut Vec<TenantPool>) {
        // A few at once, so that a cache that stays full is not searched for each newcomer.
        if self.pools.len() <= self.limits.pools {
            return;
        }
        let mut by_use: Vec<_> = self.pools.iter().map(|(id, known)| (known.used.last(), *id)).collect();
        by_use.sort_unstable();
        let few = 1 + self.limits.pools / 16;
        let victims: HashSet<_> = by_use.into_iter().map(|(_, id)| id).filter(|id| *id != newest).take(few).collect();
        self.names.forget(|tenant| victims.contains(&tenant));
        retired.extend(victims.iter().filter_map(|id| self.pools.remove(id)).map(|known| known.handle));
    }

    /// A tenant may have any number of names: expired ones go once there are many.
    fn trim_names(&mut self, now: Instant) {
        if self.names.len() > self.limits.pools.saturating_mul(4) {
            self.names.forget_expired(now);
        }
        if self.names.len() > self.limits.pools.saturating_mul(8) {
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

    fn cache(pools: usize) -> Cache {
        Cache::new(Limits { pools, fresh_for: FRESH }, Instant::now())
    }

    /// A lazy pool connects nowhere; its address only tells it from others.
    fn found(slug: &str, host: &str) -> (TenantPool, Entries) {
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

    /// Resolves as a cold path does, at that time; returns what is to be closed.
    fn resolve(cache: &mut Cache, name: &str, (pool, entries): &(TenantPool, Entries), at: Instant) -> usize {
        let read = cache.stamp(at);
        cache.keep(&slug(name), pool.clone(), entries.clone(), read).1.len()
    }

    #[tokio::test]
    async fn an_answer_counts_for_its_time_and_for_its_name_only() {
        let (mut cache, start) = (cache(9), Instant::now());
        let acme = found("acme", "a");
        resolve(&mut cache, "old", &acme, start);
        resolve(&mut cache, "acme", &acme, start + FRESH / 2);
        let later = start + FRESH;
        assert!(cache.names.get(&slug("acme"), later).is_some());
        assert!(cache.names.get(&slug("old"), later).is_none(), "the old slug may be another tenant's by now");
        assert!(cache.names.get(&TenantRef::Domain("acme".into()), later).is_none(), "a domain is no slug");
    }

    #[tokio::test]
    async fn answers_count_for_longer_while_changes_are_told() {
        let (mut cache, start) = (cache(9), Instant::now());
        resolve(&mut cache, "acme", &found("acme", "a"), start);
        assert!(cache.names.get(&slug("acme"), start + FRESH).is_none());
        cache.names.count_for(FRESH * 3);
        assert!(cache.names.get(&slug("acme"), start + FRESH * 2).is_some());
        cache.names.count_for(FRESH);
        assert!(cache.names.get(&slug("acme"), start + FRESH * 2).is_none(), "also what was answered meanwhile");
    }

    #[tokio::test]
    async fn what_was_read_before_an_invalidation_is_not_fresh() {
        let (mut cache, now) = (cache(9), Instant::now());
        let acme = found("acme", "a");
        let read = cache.stamp(now);
        cache.invalidate(acme.0.tenant().id());
        cache.keep(&slug("acme"), acme.0.clone(), acme.1.clone(), read);
        assert!(cache.names.get(&slug("acme"), now).is_none());
        assert_eq!(resolve(&mut cache, "acme", &acme, now), 0, "the pool was kept");
        assert!(cache.names.get(&slug("acme"), now).is_some());
        cache.invalidate(acme.0.tenant().id());
        assert!(cache.names.get(&slug("acme"), now).is_none());
    }

    #[tokio::test]
    async fn a_slow_read_replaces_no_newer_one() {
        let (mut cache, now) = (cache(9), Instant::now());
        let (pool, entry) = found("acme", "a");
        let mut rotated = entry.clone();
        rotated.primary.generation = crate::directory::Generation(2);
        let (slow, quick) = (cache.stamp(now), cache.stamp(now));
        let new = TenantPool::from_pool(pool.tenant().clone(), PgPool::connect_lazy("postgres://new").unwrap());
        cache.keep(&slug("acme"), new, rotated.clone(), quick);
        let (counts, retired) = cache.keep(&slug("acme"), pool.clone(), entry.clone(), slow);
        assert_eq!((counts.own().connect_options().get_host(), retired.len()), ("new", 0));
        assert!(cache.of_entries(&entry).is_none() && cache.of_entries(&rotated).is_some());
        assert_eq!(resolve(&mut cache, "acme", &(pool, entry), now), 1, "an older generation, read later, counts");
    }

    #[tokio::test]
    async fn a_replica_that_comes_or_goes_is_another_place() {
        let (mut cache, now) = (cache(9), Instant::now());
        let (pool, alone) = found("acme", "a");
        let replica = Box::new(TenantDatabase::replica_of(&alone.primary, "b", 5432));
        let both = Entries { replica: Some(replica), ..alone.clone() };
        resolve(&mut cache, "acme", &(pool.clone(), alone.clone()), now);
        assert_eq!(resolve(&mut cache, "acme", &(pool.clone(), both.clone()), now), 1, "the connections go");
        assert_eq!(resolve(&mut cache, "acme", &(pool.clone(), both), now), 0);
        assert_eq!(resolve(&mut cache, "acme", &(pool, alone), now), 1);
    }

    #[tokio::test]
    async fn two_reads_of_one_entry_share_the_first_ones_pool() {
        let (mut cache, now) = (cache(9), Instant::now());
        let (pool, entry) = found("acme", "a");
        resolve(&mut cache, "acme", &(pool.clone(), entry.clone()), now);
        let renamed = pool.tenant().clone().with_name("Acme Ltd");
        let second = TenantPool::from_pool(renamed.clone(), PgPool::connect_lazy("postgres://second").unwrap());
        let read = cache.stamp(now);
        let (handle, retired) = cache.keep(&slug("acme"), second, entry, read);
        assert_eq!((handle.own().connect_options().get_host(), retired.len()), ("nowhere", 0));
        assert_eq!(*handle.tenant(), renamed);
    }

    #[tokio::test]
    async fn the_least_recently_used_tenant_is_forgotten_first() {
        let (mut cache, now) = (cache(3), Instant::now());
        let tick = |n: u32| now + Duration::from_millis(n.into());
        for (n, name) in ["one", "two", "far"].into_iter().enumerate() {
            assert_eq!(resolve(&mut cache, name, &found(name, "a"), tick(n as u32)), 0);
        }
        assert!(cache.names.get(&slug("one"), tick(3)).is_some());
        assert_eq!(resolve(&mut cache, "near", &found("near", "a"), tick(4)), 1);
        let here = |cache: &mut Cache, name: &str| cache.names.get(&slug(name), tick(5)).is_some();
        assert!(!here(&mut cache, "two") && here(&mut cache, "one") && here(&mut cache, "far"), "two was the oldest");
        assert!(cache.names.len() == 3 && cache.len() == 3);
    }

    #[tokio::test]
    async fn many_who_are_refused_at_once_doubt_once() {
        let (mut cache, start) = (cache(9), Instant::now());
        let tick = |n: u32| start + Duration::from_millis(n.into());
        let acme = found("acme", "a");
        let id = acme.0.tenant().id();
        assert!(!cache.mark_stale(id, start, start), "nothing is known");
        resolve(&mut cache, "acme", &acme, start);
        assert!(cache.mark_stale(id, tick(1), tick(3)));
        assert!(!cache.mark_stale(id, tick(2), tick(4)), "doubted since");
        resolve(&mut cache, "acme", &acme, tick(5));
        assert!(!cache.mark_stale(id, tick(4), tick(6)), "looked up since");
        assert!(cache.names.get(&slug("acme"), tick(7)).is_some());
    }

    #[tokio::test]
    async fn names_are_bounded() {
        let (mut cache, now) = (cache(2), Instant::now());
        let acme = found("acme", "a");
        for n in 0..1000 {
            resolve(&mut cache, &format!("name-{n}"), &acme, now);
        }
        assert!(cache.names.len() <= 16, "{}", cache.names.len());
    }
}
