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
