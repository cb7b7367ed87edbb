//! Tests of the cache without a registry. Times are passed in, so no test waits.
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
