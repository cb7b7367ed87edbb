//! From a name to connections, over a registry and a vault of the test's own.
mod copies;
pub(crate) mod fakes;

use fakes::{Fakes, active, ended, known};
use futures_util::FutureExt;
use futures_util::future::join_all;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tenantry::directory::{DatabaseKind, Driver, Generation};
use tenantry::error::{ResolveError, StoreError, VaultError};
use tenantry::pool::AcquireError;
use tenantry::resolver::PooledResolver;
use tenantry::tenant::TenantStatus;
use tenantry::testing::{FixedResolver, conformance, tenant};
use tenantry::{ConnectionResolver, TenantPool, TenantRef, sqlx};

pub(crate) mod sessions;
mod spans;

#[tokio::test]
async fn every_resolver_keeps_the_promises() {
    let fakes = Fakes::default();
    let statuses = TenantStatus::ALL.into_iter().enumerate();
    let seeded: Vec<_> = statuses.map(|(n, status)| tenant(&format!("tenant-{n}"), status)).collect();
    seeded.iter().for_each(|tenant| drop(known(&fakes, tenant.clone())));
    conformance::resolver(fakes.resolver().build(), &seeded).await;

    let pool = || sqlx::PgPool::connect_lazy("postgres://localhost/nowhere").unwrap();
    let (acme, late) = (tenant("acme", TenantStatus::Active), tenant("late", TenantStatus::Suspended));
    let fixed = FixedResolver::default().handle(TenantPool::from_pool(acme.clone(), pool()));
    let fixed = fixed.refused(&late, ResolveError::Suspended(late.clone())).domain("acme.example", "acme");
    let by_domain = fixed.resolve(TenantRef::Domain("acme.example".into())).await.unwrap();
    assert_eq!(*by_domain.tenant(), acme);
    conformance::resolver(std::sync::Arc::new(fixed), &[acme, late]).await;
}

#[tokio::test]
async fn a_hundred_waiters_cost_one_look_and_outlive_the_first() {
    let (fakes, resolver) = active("acme");
    let held = fakes.hold().await;
    let mut leader = resolver.resolve("acme".into());
    assert!((&mut leader).now_or_never().is_none());
    let mut waiters = join_all((0..100).map(|_| resolver.resolve("acme".into())));
    assert!((&mut waiters).now_or_never().is_none());
    drop(leader);
    drop(held);
    assert!(waiters.await.into_iter().all(|answer| answer.is_ok()));
    assert_eq!((fakes.finds.load(SeqCst), fakes.opens.load(SeqCst)), (1, 1));
}

#[tokio::test]
async fn a_flight_that_nobody_waits_for_ends_and_the_next_one_begins() {
    let (fakes, resolver) = active("acme");
    let held = fakes.hold().await;
    let mut alone = resolver.resolve("acme".into());
    assert!((&mut alone).now_or_never().is_none());
    drop(alone);
    assert_eq!(fakes.running.load(SeqCst), 0, "its look at the registry was dropped with it");
    drop(held);
    resolver.resolve("acme".into()).await.unwrap();
    assert_eq!(fakes.finds.load(SeqCst), 2);
}

#[tokio::test]
async fn who_asks_after_an_invalidation_is_told_what_holds_after_it() {
    let (fakes, resolver) = active("acme");
    let held = fakes.hold().await;
    let before = tokio::spawn({
        let resolver = resolver.clone();
        async move { resolver.resolve("acme".into()).await }
    });
    fakes.asked_at_least(1).await;
    let suspended = fakes.set_status("acme", TenantStatus::Suspended);
    resolver.invalidate(suspended.id());
    let after = tokio::spawn({
        let resolver = resolver.clone();
        async move { resolver.resolve("acme".into()).await }
    });
    fakes.asked_at_least(2).await;
    drop(held);
    assert!(matches!(after.await.unwrap(), Err(ResolveError::Suspended(_))));
    let _ = before.await.unwrap();
    assert!(resolver.cached(&"acme".into()).is_none(), "what was read before does not count");
}

#[tokio::test]
async fn an_answer_counts_for_a_while_and_then_costs_a_look_but_no_secret() {
    let fakes = Fakes::default();
    let acme = known(&fakes, tenant("acme", TenantStatus::Active));
    let resolver = fakes.resolver().fresh_for(Duration::from_millis(2000)).build();
    for _ in 0..10 {
        resolver.resolve("acme".into()).await.unwrap();
        assert!(resolver.cached(&"acme".into()).is_some());
    }
    assert_eq!(fakes.finds.load(SeqCst), 1);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert!(resolver.cached(&"acme".into()).is_none());
    fakes.replace(acme.clone().with_name("Acme Ltd"));
    assert_eq!(resolver.resolve("acme".into()).await.unwrap().tenant().name(), "Acme Ltd");
    assert_eq!((fakes.finds.load(SeqCst), fakes.opens.load(SeqCst)), (2, 1));
}

#[tokio::test]
async fn a_slug_that_changed_hands_leads_to_its_new_tenant() {
    let fakes = Fakes::default();
    let first = known(&fakes, tenant("acme", TenantStatus::Active));
    let resolver = fakes.resolver().fresh_for(Duration::from_millis(100)).build();
    resolver.resolve("acme".into()).await.unwrap();
    fakes.replace(first.clone().with_slug("older".parse().unwrap()));
    let second = known(&fakes, tenant("acme", TenantStatus::Active));
    let until = tokio::time::Instant::now() + Duration::from_millis(150);
    while tokio::time::Instant::now() < until {
        assert_eq!(resolver.resolve(first.id().into()).await.unwrap().tenant().id(), first.id());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(resolver.resolve("acme".into()).await.unwrap().tenant(), &second, "however hot the first one is");
}

#[tokio::test]
async fn each_failure_has_its_name_and_none_is_kept() {
    let (fakes, resolver) = active("acme");
    let resolve = || resolver.resolve("acme".into());
    fakes.entry("acme", |entry| entry.kind = DatabaseKind::Backup);
    assert!(matches!(resolve().await, Err(ResolveError::NoEntry(_))));
    fakes.entry("acme", |entry| (entry.kind, entry.driver) = (DatabaseKind::Primary, Driver::MySql));
    assert!(matches!(resolve().await, Err(ResolveError::NotBuilt { driver: Driver::MySql, .. })));
    fakes.entry("acme", |entry| (entry.driver, entry.credential.version) = (Driver::Postgres, 2));
    assert!(matches!(resolve().await, Err(ResolveError::Credential(VaultError::Missing(_)))));
    fakes.entry("acme", |entry| entry.credential.version = 1);
    fakes.down.store(true, SeqCst);
    let error = resolve().await.unwrap_err();
    assert!(matches!(error, ResolveError::Landlord(StoreError::Unavailable(_))) && error.retry_after().is_some());
    fakes.down.store(false, SeqCst);
    resolve().await.unwrap();
    let asked = fakes.finds.load(SeqCst);
    for text in ["Acme", "ac me", "www", "a.b"] {
        assert!(matches!(resolver.resolve(text.into()).await, Err(ResolveError::Invalid(_))), "{text}");
    }
    assert_eq!(fakes.finds.load(SeqCst), asked, "garbage costs the landlord nothing");
}

#[tokio::test]
async fn close_ends_what_is_on_its_way_and_every_handle() {
    let (fakes, resolver) = active("acme");
    let handle = resolver.resolve("acme".into()).await.unwrap();
    resolver.invalidate(handle.tenant().id());
    let _held = fakes.hold().await;
    let waiting = tokio::spawn({
        let resolver = resolver.clone();
        async move { resolver.resolve("acme".into()).await }
    });
    fakes.asked_at_least(2).await;
    resolver.close().await;
    assert!(matches!(waiting.await.unwrap(), Err(ResolveError::Closed)));
    ended(&fakes).await;
    let error = sqlx::query("SELECT 1").execute(&handle).await.unwrap_err();
    assert!(matches!(AcquireError::find(&error), Some(AcquireError::Closed)), "{error:?}");
    drop(resolver);
    let error = handle.begin().await.unwrap_err();
    assert!(matches!(AcquireError::find(&error), Some(AcquireError::Closed)), "{error:?}");
}

#[tokio::test]
async fn a_job_carries_its_tenant_and_hands_it_to_nobody_else() {
    let pool = sqlx::PgPool::connect_lazy("postgres://localhost/nowhere").unwrap();
    let harness = tenantry::testing::Harness::start().await.unwrap();
    let fixed = FixedResolver::default().tenant("acme", pool.clone()).tenant("umbrella", pool);
    let tenantry = harness.tenantry(|builder| builder.resolver(fixed)).await.unwrap();
    let current = || TenantPool::current().map(|db| db.tenant().slug().to_string());
    assert_eq!(current(), None, "never a default");
    let jobs = ["acme", "umbrella"].map(|slug| {
        tenantry.with_tenant(slug, move |db| async move {
            assert_eq!(db.tenant().slug().as_str(), slug);
            tokio::task::yield_now().await;
            assert_eq!(current().as_deref(), Some(slug));
            let spawned = tokio::spawn(async move { current() }).await.unwrap();
            assert_eq!(spawned, None, "not inherited");
            Ok::<_, ResolveError>(())
        })
    });
    join_all(jobs).await.into_iter().for_each(|done| done.unwrap());
    let nobody = tenantry.with_tenant("nobody", |_| async { Ok::<_, ResolveError>(()) }).await;
    assert!(matches!(nobody, Err(ResolveError::Unknown)));
    assert_eq!(current(), None);
}

#[tokio::test]
async fn a_new_generation_takes_the_place_of_the_old_one() {
    let (fakes, resolver) = active("acme");
    let old = resolver.resolve("acme".into()).await.unwrap();
    fakes.entry("acme", |entry| entry.generation = Generation(2));
    resolver.invalidate(old.tenant().id());
    resolver.resolve("acme".into()).await.unwrap();
    assert_eq!(fakes.opens.load(SeqCst), 2, "another login has another secret");
    fakes.entry("acme", |entry| entry.settings.search_path = vec!["other".into()]);
    resolver.invalidate(old.tenant().id());
    resolver.resolve("acme".into()).await.unwrap();
    assert_eq!(fakes.opens.load(SeqCst), 3, "other settings, other connections");
    assert!(format!("{resolver:?} {old:?}").contains("PooledResolver { pools: 1"));
}

#[tokio::test]
async fn a_rotation_that_ends_between_two_reads_is_followed() {
    let (fakes, resolver) = active("acme");
    fakes.rotating.store(true, SeqCst);
    resolver.resolve("acme".into()).await.expect("with the entry of the new login");
    assert_eq!(fakes.opens.load(SeqCst), 2);
}

/// Not a test: what every kind of resolver must accept as registry and vault.
#[allow(dead_code)]
fn arcs_go_in_too(
    registry: std::sync::Arc<dyn tenantry::TenantRegistry>, vault: std::sync::Arc<dyn tenantry::CredentialVault>,
) -> std::sync::Arc<dyn ConnectionResolver> {
    std::sync::Arc::new(PooledResolver::builder(registry, vault).build())
}
