//! `PooledResolver`: single-flight look-ups, caching and invalidation, over a fake registry and vault ([`fakes`]).
//!
//! Submodules use real databases: COPY and cancelled queries (`copies`), sessions and pools (`sessions`), tracing
//! (`spans`).
mod copies;
pub(crate) mod fakes;

use fakes::{Fakes, active, add_tenant, wait_until_registry_is_idle};
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
async fn pooled_and_fixed_resolver_pass_the_conformance_suite() {
    let fakes = Fakes::default();
    let statuses = TenantStatus::ALL.into_iter().enumerate();
    let seeded: Vec<_> = statuses.map(|(n, status)| tenant(&format!("tenant-{n}"), status)).collect();
    seeded.iter().for_each(|tenant| drop(add_tenant(&fakes, tenant.clone())));
    conformance::resolver(fakes.resolver().build(), &seeded).await;

    let pool = || sqlx::PgPool::connect_lazy("postgres://localhost/nowhere").unwrap();
    let (acme, suspended_tenant) = (tenant("acme", TenantStatus::Active), tenant("late", TenantStatus::Suspended));
    let fixed = FixedResolver::default().handle(TenantPool::from_pool(acme.clone(), pool()));
    let fixed = fixed
        .refused(&suspended_tenant, ResolveError::Suspended(suspended_tenant.clone()))
        .domain("acme.example", "acme");
    let by_domain = fixed.resolve(TenantRef::Domain("acme.example".into())).await.unwrap();
    assert_eq!(*by_domain.tenant(), acme);
    conformance::resolver(std::sync::Arc::new(fixed), &[acme, suspended_tenant]).await;
}

#[tokio::test]
async fn concurrent_resolves_share_one_lookup_that_survives_its_first_caller() {
    let (fakes, resolver) = active("acme");
    let blocked = fakes.block_answers().await;
    let mut leader = resolver.resolve("acme".into());
    assert!((&mut leader).now_or_never().is_none());
    let mut waiters = join_all((0..100).map(|_| resolver.resolve("acme".into())));
    assert!((&mut waiters).now_or_never().is_none());
    drop(leader);
    drop(blocked);
    assert!(waiters.await.into_iter().all(|answer| answer.is_ok()));
    assert_eq!((fakes.finds.load(SeqCst), fakes.opens.load(SeqCst)), (1, 1));
}

#[tokio::test]
async fn lookup_without_waiters_is_dropped_and_the_next_resolve_starts_another() {
    let (fakes, resolver) = active("acme");
    let blocked = fakes.block_answers().await;
    let mut alone = resolver.resolve("acme".into());
    assert!((&mut alone).now_or_never().is_none());
    drop(alone);
    assert_eq!(fakes.running.load(SeqCst), 0, "the registry call outlived its only waiter");
    drop(blocked);
    resolver.resolve("acme".into()).await.unwrap();
    assert_eq!(fakes.finds.load(SeqCst), 2);
}

#[tokio::test]
async fn resolve_after_an_invalidation_does_not_join_an_earlier_lookup() {
    let (fakes, resolver) = active("acme");
    let blocked = fakes.block_answers().await;
    let before = tokio::spawn({
        let resolver = resolver.clone();
        async move { resolver.resolve("acme".into()).await }
    });
    fakes.wait_for_finds(1).await;
    let suspended = fakes.set_status("acme", TenantStatus::Suspended);
    resolver.invalidate(suspended.id());
    let after = tokio::spawn({
        let resolver = resolver.clone();
        async move { resolver.resolve("acme".into()).await }
    });
    fakes.wait_for_finds(2).await;
    drop(blocked);
    assert!(matches!(after.await.unwrap(), Err(ResolveError::Suspended(_))));
    let _ = before.await.unwrap();
    assert!(resolver.cached(&"acme".into()).is_none(), "an answer that was read before the invalidation is cached");
}

#[tokio::test]
async fn stale_answer_is_read_again_without_opening_the_secret_again() {
    let fakes = Fakes::default();
    let acme = add_tenant(&fakes, tenant("acme", TenantStatus::Active));
    let resolver = fakes.resolver().pool(|p| p.fresh_for(Duration::from_millis(2000))).build();
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
async fn slug_of_another_tenant_resolves_to_its_new_owner_when_stale() {
    let fakes = Fakes::default();
    let first = add_tenant(&fakes, tenant("acme", TenantStatus::Active));
    let resolver = fakes.resolver().pool(|p| p.fresh_for(Duration::from_millis(100))).build();
    resolver.resolve("acme".into()).await.unwrap();
    fakes.replace(first.clone().with_slug("older".parse().unwrap()));
    let second = add_tenant(&fakes, tenant("acme", TenantStatus::Active));
    let until = tokio::time::Instant::now() + Duration::from_millis(150);
    while tokio::time::Instant::now() < until {
        assert_eq!(resolver.resolve(first.id().into()).await.unwrap().tenant().id(), first.id());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        resolver.resolve("acme".into()).await.unwrap().tenant(),
        &second,
        "the slug still resolves to its first tenant, which is in constant use"
    );
}

#[tokio::test]
async fn each_failure_has_its_own_error_and_is_not_cached() {
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
    assert_eq!(fakes.finds.load(SeqCst), asked, "an invalid name caused a registry call");
}

#[tokio::test]
async fn close_ends_running_lookups_and_every_handle() {
    let (fakes, resolver) = active("acme");
    let handle = resolver.resolve("acme".into()).await.unwrap();
    resolver.invalidate(handle.tenant().id());
    let _blocked = fakes.block_answers().await;
    let waiting = tokio::spawn({
        let resolver = resolver.clone();
        async move { resolver.resolve("acme".into()).await }
    });
    fakes.wait_for_finds(2).await;
    resolver.close().await;
    assert!(matches!(waiting.await.unwrap(), Err(ResolveError::Closed)));
    wait_until_registry_is_idle(&fakes).await;
    let error = sqlx::query("SELECT 1").execute(&handle).await.unwrap_err();
    assert!(matches!(AcquireError::find(&error), Some(AcquireError::Closed)), "{error:?}");
    drop(resolver);
    let error = handle.begin().await.unwrap_err();
    assert!(matches!(AcquireError::find(&error), Some(AcquireError::Closed)), "{error:?}");
}

#[tokio::test]
async fn with_tenant_sets_the_current_tenant_for_its_task_only() {
    let pool = sqlx::PgPool::connect_lazy("postgres://localhost/nowhere").unwrap();
    let harness = tenantry::testing::Harness::start().await.unwrap();
    let fixed = FixedResolver::default().tenant("acme", pool.clone()).tenant("umbrella", pool);
    let tenantry = harness.tenantry(|builder| builder.resolver(fixed)).await.unwrap();
    let current = || TenantPool::current().map(|db| db.tenant().slug().to_string());
    assert_eq!(current(), None, "there is a current tenant outside of with_tenant()");
    let jobs = ["acme", "umbrella"].map(|slug| {
        tenantry.with_tenant(slug, move |db| async move {
            assert_eq!(db.tenant().slug().as_str(), slug);
            tokio::task::yield_now().await;
            assert_eq!(current().as_deref(), Some(slug));
            let spawned = tokio::spawn(async move { current() }).await.unwrap();
            assert_eq!(spawned, None, "a spawned task inherited the current tenant");
            Ok::<_, ResolveError>(())
        })
    });
    join_all(jobs).await.into_iter().for_each(|done| done.unwrap());
    let unknown = tenantry.with_tenant("nobody", |_| async { Ok::<_, ResolveError>(()) }).await;
    assert!(matches!(unknown, Err(ResolveError::Unknown)));
    assert_eq!(current(), None);
}

#[tokio::test]
async fn new_generation_or_settings_replace_the_pool() {
    let (fakes, resolver) = active("acme");
    let old = resolver.resolve("acme".into()).await.unwrap();
    fakes.entry("acme", |entry| entry.generation = Generation(2));
    resolver.invalidate(old.tenant().id());
    resolver.resolve("acme".into()).await.unwrap();
    assert_eq!(fakes.opens.load(SeqCst), 2, "the secret of the new login was not opened");
    fakes.entry("acme", |entry| entry.settings.search_path = vec!["other".into()]);
    resolver.invalidate(old.tenant().id());
    resolver.resolve("acme".into()).await.unwrap();
    assert_eq!(fakes.opens.load(SeqCst), 3, "the changed settings did not lead to a new pool");
    assert!(format!("{resolver:?} {old:?}").contains("PooledResolver { pools: 1"));
}

#[tokio::test]
async fn rotation_between_reading_the_entry_and_its_secret_is_retried() {
    let (fakes, resolver) = active("acme");
    fakes.rotating.store(true, SeqCst);
    resolver.resolve("acme".into()).await.expect("the resolver did not read the entry of the new login");
    assert_eq!(fakes.opens.load(SeqCst), 2);
}

/// Compiles only if the builder accepts trait objects as registry and vault. It is never called.
#[allow(dead_code, reason = "it only has to compile")]
fn builder_accepts_trait_objects(
    registry: std::sync::Arc<dyn tenantry::TenantRegistry>, vault: std::sync::Arc<dyn tenantry::CredentialVault>,
) -> std::sync::Arc<dyn ConnectionResolver> {
    std::sync::Arc::new(PooledResolver::builder(registry, vault).build())
}
