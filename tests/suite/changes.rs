//! What one node changes, the others hear of.
use crate::provision::migrated;
use futures_util::StreamExt;
use sqlx::Executor;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::error::ResolveError;
use tenantry::registry::{Change, PgChanges, PgTenantRegistry, RegistryWriter};
use tenantry::testing::Harness;
use tenantry::{ConnectionResolver, TenantId, TenantPool, TenantRef, sqlx};
use tokio::sync::Notify;

/// A resolver of the host's that is told.
#[derive(Clone, Default)]
struct Told(Arc<(Mutex<Vec<TenantId>>, Notify)>);

#[async_trait::async_trait]
impl ConnectionResolver for Told {
    fn cached(&self, _: &TenantRef<'_>) -> Option<TenantPool> {
        None
    }
    async fn resolve(&self, _: TenantRef<'_>) -> Result<TenantPool, ResolveError> {
        Err(ResolveError::Unknown)
    }
    fn invalidate(&self, tenant: TenantId) {
        self.0.0.lock().unwrap().push(tenant);
        self.0.1.notify_one();
    }
    fn invalidate_all(&self) {
        self.0.1.notify_one();
    }
    async fn close(&self) {}
}

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_that_runs_hears_of_a_change_on_another_one() {
    let harness = Harness::start().await.unwrap();
    let (here, told) = (harness.tenantry(migrated).await.unwrap(), Told::default());
    let resolver = told.clone();
    let there = harness.tenantry(|b| migrated(b).resolver(resolver)).await.unwrap();
    let running = tokio::spawn(there.run(std::future::pending::<()>()));
    tokio::time::timeout(SOON, told.0.1.notified()).await.expect("it listens");
    let acme = here.provision("acme").await.unwrap().tenant.id();
    here.suspend("acme").await.unwrap();
    tokio::time::timeout(SOON, async {
        while !told.0.0.lock().unwrap().contains(&acme) {
            told.0.1.notified().await;
        }
    })
    .await
    .expect("it is told");
    there.close().await;
    running.await.unwrap().unwrap();
}

/// An answer counts for a minute then; the change is seen long before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cached_tenant_is_forgotten_when_another_node_renames_it() {
    const LISTENS: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE query LIKE 'LISTEN%' AND datname = current_database()";
    let harness = Harness::start().await.unwrap();
    let (here, there) = (harness.tenantry(migrated).await.unwrap(), harness.tenantry(migrated).await.unwrap());
    let acme = here.provision("acme").await.unwrap().tenant;
    let running = tokio::spawn(there.run(std::future::pending::<()>()));
    let cached = || there.resolver().cached(&"acme".into()).is_some();
    tokio::time::timeout(SOON, async {
        while sqlx::query_scalar::<_, i64>(LISTENS).fetch_one(harness.landlord()).await.unwrap() == 0 || !cached() {
            there.resolve("acme").await.unwrap();
        }
        let renamed = acme.clone().with_slug("umbrella".parse().unwrap());
        PgTenantRegistry::new(harness.landlord().clone()).update(&acme, &renamed, None).await.unwrap();
        while cached() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the old slug is nobody's");
    there.close().await;
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn changes_by_hand_are_told_and_a_lost_connection_is_no_silence() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let acme = tenantry.provision("acme").await.unwrap().tenant.id();
    let pool = sqlx::PgPool::connect_with(harness.landlord().connect_options().as_ref().clone()).await.unwrap();
    let mut changes = PgChanges::new(pool).follow();
    let mut next = async || tokio::time::timeout(SOON, changes.next()).await.expect("in time").unwrap();
    assert_eq!(next().await, Change::Missed, "what was before counts no more");
    for by_hand in [
        "UPDATE tenantry.tenants SET name = 'Acme Ltd'",
        "INSERT INTO tenantry.tenant_domains (domain, tenant_id) SELECT 'acme.example', id FROM tenantry.tenants",
        "DELETE FROM tenantry.tenant_domains",
        "UPDATE tenantry.tenant_databases SET generation = generation + 1",
    ] {
        harness.landlord().execute(by_hand).await.unwrap();
        assert_eq!(next().await, Change::Tenant(acme), "{by_hand}");
    }
    harness.landlord().execute("NOTIFY tenantry_changes, 'no tenant at all'").await.unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()";
    harness.landlord().execute(end).await.unwrap();
    assert_eq!(next().await, Change::Lost, "words of somebody else's are no change");
    assert_eq!(next().await, Change::Missed, "it listens again");
    harness.landlord().execute("UPDATE tenantry.tenants SET name = 'Acme'").await.unwrap();
    assert_eq!(next().await, Change::Tenant(acme));
}

#[tokio::test]
async fn a_name_that_is_nobodys_is_asked_for_once_and_a_new_tenant_is_seen_at_once() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use tenantry::directory::TenantDatabase;
    use tenantry::error::StoreError;
    use tenantry::registry::PgTenantRegistry;
    use tenantry::resolver::PooledResolver;
    use tenantry::{ConnectionResolver, Tenant, TenantId, TenantRef, TenantRegistry};
    struct Counted(Arc<dyn TenantRegistry>, Arc<AtomicU64>);
    #[async_trait::async_trait]
    impl TenantRegistry for Counted {
        async fn find(&self, tenant: TenantRef<'_>) -> Result<Option<Tenant>, StoreError> {
            self.1.fetch_add(1, Relaxed);
            self.0.find(tenant).await
        }
        async fn databases(&self, tenant: TenantId) -> Result<Vec<TenantDatabase>, StoreError> {
            self.0.databases(tenant).await
        }
        async fn page(&self, after: Option<TenantId>, limit: u32) -> Result<Vec<Tenant>, StoreError> {
            self.0.page(after, limit).await
        }
    }
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let resolver = PooledResolver::builder(Counted(tenantry.registry(), asked.clone()), tenantry.vault())
        .servers(PgTenantRegistry::new(harness.landlord().clone()))
        .build();
    for _ in 0..50 {
        assert!(matches!(resolver.resolve("nobody".into()).await, Err(ResolveError::Unknown)));
    }
    // A slow machine may outlast the second for which it counts.
    assert!(asked.load(Relaxed) < 10, "{}", asked.load(Relaxed));
    let before = asked.load(Relaxed);
    for n in 0..9000 {
        assert!(resolver.resolve(format!("scan-{n}").as_str().into()).await.is_err());
    }
    assert!(asked.load(Relaxed) >= before + 9000, "each new one is read, whatever is remembered");

    assert!(tenantry.resolve("acme").await.is_err());
    tenantry.provision("acme").await.unwrap();
    tenantry.resolve("acme").await.expect("it is somebody's now");
}

#[tokio::test]
async fn a_tenant_that_is_behind_does_not_resolve_until_it_is_migrated() {
    let harness = Harness::start().await.unwrap();
    const NOTES: &str = "CREATE TABLE notes (text text)";
    let (old, new) =
        (crate::migrate::migrations(&[NOTES]), crate::migrate::migrations(&[NOTES, "ALTER TABLE notes ADD done bool"]));
    let before = harness.tenantry(move |b| b.tenant_migrations(old).require_head(true)).await.unwrap();
    before.provision("acme").await.unwrap();
    before.resolve("acme").await.expect("it has all that this program knows");
    let after = harness.tenantry(move |b| b.tenant_migrations(new).require_head(true)).await.unwrap();
    for _ in 0..2 {
        let behind = after.resolve("acme").await;
        assert!(matches!(&behind, Err(ResolveError::Behind(tenant)) if tenant.slug().as_str() == "acme"), "{behind:?}");
    }
    after.migrate("acme").await.unwrap();
    let db = after.resolve("acme").await.expect("it is there now");
    db.execute("SELECT done FROM notes").await.unwrap();
    before.resolve("acme").await.unwrap().execute("SELECT text FROM notes").await.expect("an older node goes on");
}

#[cfg(feature = "metrics")]
#[tokio::test]
async fn the_budgets_are_told_to_a_recorder_without_any_tenants_name() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let acme = tenantry.provision("acme").await.unwrap();
    let db = tenantry.resolve("acme").await.unwrap();
    let held = db.acquire().await.unwrap();
    let recorder = DebuggingRecorder::new();
    let seen = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || tenantry::pool::metrics::publish(&tenantry.pool_stats()));
    let seen = seen.snapshot().into_vec();
    let of = |name: &str| seen.iter().find(|(key, ..)| key.key().name() == name).map(|(.., value)| value);
    assert!(matches!(of("tenantry_connections_open"), Some(DebugValue::Gauge(open)) if open.0 >= 1.0));
    assert!(matches!(of("tenantry_acquire_total"), Some(DebugValue::Counter(asked)) if *asked >= 1));
    let text = format!("{seen:?}");
    assert!(text.contains("server") && !text.contains("acme"), "{text}");
    assert!(!text.contains(&acme.tenant.id().as_uuid().simple().to_string()), "{text}");
    drop(held);
}
