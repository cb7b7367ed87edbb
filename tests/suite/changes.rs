//! Change notifications: when a node or an operator changes a tenant, other nodes drop it from their caches. Also the
//! cache of unknown names, the refusal of tenants with missing migrations, and the metrics of the pools.
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

/// An application's own resolver that records the tenants that it is asked to invalidate.
#[derive(Clone, Default)]
struct RecordingResolver(Arc<(Mutex<Vec<TenantId>>, Notify)>);

#[async_trait::async_trait]
impl ConnectionResolver for RecordingResolver {
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

const TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_node_invalidates_a_tenant_changed_on_another_node() {
    let harness = Harness::start().await.unwrap();
    let (node, recorder) = (harness.tenantry(migrated).await.unwrap(), RecordingResolver::default());
    let resolver = recorder.clone();
    let other_node = harness.tenantry(|b| migrated(b).resolver(resolver)).await.unwrap();
    let running = tokio::spawn(other_node.run(std::future::pending::<()>()));
    tokio::time::timeout(TIMEOUT, recorder.0.1.notified()).await.expect("the node listens for changes");
    let acme = node.provision("acme").await.unwrap().tenant.id();
    node.suspend("acme").await.unwrap();
    tokio::time::timeout(TIMEOUT, async {
        while !recorder.0.0.lock().unwrap().contains(&acme) {
            recorder.0.1.notified().await;
        }
    })
    .await
    .expect("the node invalidates the changed tenant");
    other_node.close().await;
    running.await.unwrap().unwrap();
}

/// While a node listens for changes, a cache entry is valid for a minute. The notification removes it long before that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_tenant_is_dropped_when_another_node_renames_it() {
    const LISTENERS: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE query LIKE 'LISTEN%' AND datname = current_database()";
    let harness = Harness::start().await.unwrap();
    let (node, other_node) = (harness.tenantry(migrated).await.unwrap(), harness.tenantry(migrated).await.unwrap());
    let acme = node.provision("acme").await.unwrap().tenant;
    let running = tokio::spawn(other_node.run(std::future::pending::<()>()));
    let cached = || other_node.resolver().cached(&"acme".into()).is_some();
    tokio::time::timeout(TIMEOUT, async {
        while sqlx::query_scalar::<_, i64>(LISTENERS).fetch_one(harness.landlord()).await.unwrap() == 0 || !cached() {
            other_node.resolve("acme").await.unwrap();
        }
        let renamed = acme.clone().with_slug("umbrella".parse().unwrap());
        PgTenantRegistry::new(harness.landlord().clone()).update(&acme, &renamed, None).await.unwrap();
        while cached() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the node drops the renamed tenant's old slug from its cache");
    other_node.close().await;
    running.await.unwrap().unwrap();
}

/// An operator's statements move names between tenants while a node has cached where the names lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_moved_by_sql_lead_to_their_new_tenant_on_a_running_node() {
    let harness = Harness::start().await.unwrap();
    let node = harness.tenantry(migrated).await.unwrap();
    let acme = node.provision("acme").domain("shop.example").await.unwrap().tenant.id();
    let other = node.provision("umbrella").await.unwrap().tenant.id();
    let running = tokio::spawn(node.run(std::future::pending::<()>()));
    let pool = sqlx::PgPool::connect_with(harness.landlord().connect_options().as_ref().clone()).await.unwrap();
    let mut changes = PgChanges::new(pool).follow();
    assert_eq!(tokio::time::timeout(TIMEOUT, changes.next()).await.unwrap(), Some(Change::Missed));
    let domain = || TenantRef::Domain("shop.example".into());
    let owner = async |name: TenantRef<'static>| node.resolve(name).await.map(|pool| pool.tenant().id()).ok();
    let settle = async |name: &dyn Fn() -> TenantRef<'static>, expected: Option<TenantId>| {
        let settled = async {
            while owner(name()).await != expected {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TIMEOUT, settled).await.unwrap_or_else(|_| panic!("{:?} still leads elsewhere", name()));
    };
    settle(&domain, Some(acme)).await;
    settle(&|| "umbrella".into(), Some(other)).await;

    let moved =
        "UPDATE tenantry.tenant_domains SET tenant_id = (SELECT id FROM tenantry.tenants WHERE slug = 'umbrella')";
    harness.landlord().execute(moved).await.unwrap();
    let mut told = std::collections::HashSet::new();
    while told.len() < 2 {
        match tokio::time::timeout(TIMEOUT, changes.next()).await.expect("both tenants are reported").unwrap() {
            Change::Tenant(tenant) => told.insert(tenant),
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(told, [acme, other].into(), "the tenants whose caches a moved domain clears");
    settle(&domain, Some(other)).await;
    // Two slugs change places, so each name leads to a tenant that had another one.
    let swap = "UPDATE tenantry.tenants SET slug = 'swap' WHERE slug = 'acme';
        UPDATE tenantry.tenants SET slug = 'acme' WHERE slug = 'umbrella';
        UPDATE tenantry.tenants SET slug = 'umbrella' WHERE slug = 'swap'";
    harness.landlord().execute(sqlx::raw_sql(swap)).await.unwrap();
    settle(&|| "acme".into(), Some(other)).await;
    settle(&|| "umbrella".into(), Some(acme)).await;
    harness.landlord().execute("DELETE FROM tenantry.tenant_domains").await.unwrap();
    settle(&domain, None).await;
    node.close().await;
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn manual_changes_and_lost_connections_are_reported() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let acme = tenantry.provision("acme").await.unwrap().tenant.id();
    let pool = sqlx::PgPool::connect_with(harness.landlord().connect_options().as_ref().clone()).await.unwrap();
    let mut changes = PgChanges::new(pool).follow();
    let mut next = async || {
        tokio::time::timeout(TIMEOUT, changes.next())
            .await
            .expect("a change is reported within the time limit")
            .unwrap()
    };
    assert_eq!(next().await, Change::Missed, "a new listener must report that earlier changes may be missing");
    for statement in [
        "UPDATE tenantry.tenants SET name = 'Acme Ltd'",
        "INSERT INTO tenantry.tenant_domains (domain, tenant_id) SELECT 'acme.example', id FROM tenantry.tenants",
        "DELETE FROM tenantry.tenant_domains",
        "UPDATE tenantry.tenant_databases SET generation = generation + 1",
    ] {
        harness.landlord().execute(statement).await.unwrap();
        assert_eq!(next().await, Change::Tenant(acme), "{statement}");
    }
    harness.landlord().execute("NOTIFY tenantry_changes, 'no tenant at all'").await.unwrap();
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        WHERE query LIKE 'LISTEN%' AND datname = current_database()";
    harness.landlord().execute(terminate).await.unwrap();
    assert_eq!(next().await, Change::Lost, "a payload that is not a tenant id must not be reported as a change");
    assert_eq!(
        next().await,
        Change::Missed,
        "after it reconnects, the listener must report that changes may be missing"
    );
    harness.landlord().execute("UPDATE tenantry.tenants SET name = 'Acme'").await.unwrap();
    assert_eq!(next().await, Change::Tenant(acme));
}

#[tokio::test]
async fn unknown_name_is_read_once_and_a_new_tenant_resolves_at_once() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use tenantry::directory::TenantDatabase;
    use tenantry::error::{Rows, StoreError};
    use tenantry::registry::PgTenantRegistry;
    use tenantry::resolver::PooledResolver;
    use tenantry::{ConnectionResolver, Tenant, TenantId, TenantRef, TenantRegistry};
    struct CountingRegistry(Arc<dyn TenantRegistry>, Arc<AtomicU64>);
    #[async_trait::async_trait]
    impl TenantRegistry for CountingRegistry {
        async fn find(&self, tenant: TenantRef<'_>) -> Result<Option<Tenant>, StoreError> {
            self.1.fetch_add(1, Relaxed);
            self.0.find(tenant).await
        }
        async fn databases(&self, tenant: TenantId) -> Result<Vec<TenantDatabase>, StoreError> {
            self.0.databases(tenant).await
        }
        async fn page(&self, after: Option<TenantId>, limit: u32) -> Result<Rows<Tenant>, StoreError> {
            self.0.page(after, limit).await
        }
    }
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let finds = Arc::new(AtomicU64::new(0));
    let resolver = PooledResolver::builder(CountingRegistry(tenantry.registry(), finds.clone()), tenantry.vault())
        .servers(PgTenantRegistry::new(harness.landlord().clone()))
        .build();
    for _ in 0..50 {
        assert!(matches!(resolver.resolve("unknown".into()).await, Err(ResolveError::Unknown)));
    }
    // An unknown name is cached for a second. On a slow machine the 50 lookups may take longer than that.
    assert!(finds.load(Relaxed) < 10, "50 lookups of one name read the registry {} times", finds.load(Relaxed));
    let before = finds.load(Relaxed);
    for n in 0..9000 {
        assert!(resolver.resolve(format!("scan-{n}").as_str().into()).await.is_err());
    }
    assert!(
        finds.load(Relaxed) >= before + 9000,
        "every name that was not looked up before must be read from the registry"
    );

    assert!(tenantry.resolve("acme").await.is_err());
    tenantry.provision("acme").await.unwrap();
    tenantry.resolve("acme").await.expect("a new tenant must resolve although its name was cached as unknown");
}

#[tokio::test]
async fn tenant_with_missing_migrations_resolves_only_after_migrate() {
    let harness = Harness::start().await.unwrap();
    const NOTES: &str = "CREATE TABLE notes (text text)";
    let (old, new) =
        (crate::migrate::migrations(&[NOTES]), crate::migrate::migrations(&[NOTES, "ALTER TABLE notes ADD done bool"]));
    let before = harness.tenantry(move |b| b.tenant_migrations(old).require_head(true)).await.unwrap();
    before.provision("acme").await.unwrap();
    before.resolve("acme").await.expect("the tenant has every migration that this node knows");
    let after = harness.tenantry(move |b| b.tenant_migrations(new).require_head(true)).await.unwrap();
    for _ in 0..2 {
        let behind = after.resolve("acme").await;
        assert!(matches!(&behind, Err(ResolveError::Behind(tenant)) if tenant.slug().as_str() == "acme"), "{behind:?}");
    }
    after.migrate("acme").await.unwrap();
    let db = after.resolve("acme").await.expect("the migrated tenant resolves");
    db.execute("SELECT done FROM notes").await.unwrap();
    before
        .resolve("acme")
        .await
        .unwrap()
        .execute("SELECT text FROM notes")
        .await
        .expect("a node with fewer migrations still serves the tenant");
}

#[cfg(feature = "metrics")]
#[tokio::test]
async fn metrics_describe_the_pools_without_naming_a_tenant() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let acme = tenantry.provision("acme").await.unwrap();
    let db = tenantry.resolve("acme").await.unwrap();
    let connection = db.acquire().await.unwrap();
    let recorder = DebuggingRecorder::new();
    let seen = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || tenantry::pool::metrics::publish(&tenantry.pool_stats()));
    let seen = seen.snapshot().into_vec();
    let of = |name: &str| seen.iter().find(|(key, ..)| key.key().name() == name).map(|(.., value)| value);
    assert!(matches!(of("tenantry_connections_open"), Some(DebugValue::Gauge(open)) if open.0 >= 1.0));
    assert!(matches!(of("tenantry_acquire_total"), Some(DebugValue::Counter(count)) if *count >= 1));
    let text = format!("{seen:?}");
    assert!(text.contains("server") && !text.contains("acme"), "{text}");
    assert!(!text.contains(&acme.tenant.id().as_uuid().simple().to_string()), "{text}");
    drop(connection);
}
