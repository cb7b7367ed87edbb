//! A landlord that fails over to an asynchronous standby forgets its last commits: who can see it stops.
use crate::auditor;
use crate::lanes::Stopped;
use crate::provision::migrated;
use sqlx::Executor;
use std::sync::Arc;
use std::time::Duration;
use tenantry::error::{ClusterError, ProvisionError, StepError};
use tenantry::operation::OperationStatus;
use tenantry::sqlx;
use tenantry::step::{Compensate, Step, StepContext};
use tenantry::testing::Harness;
use tokio::sync::Semaphore;

/// As if the commits since then had never been.
async fn forget(harness: &Harness, statement: &'static str) {
    let done = harness.landlord().execute(statement).await.unwrap();
    assert!(done.rows_affected() > 0, "there was something to forget");
}

/// A host step that says that it is reached, and waits.
#[derive(Clone)]
struct Wait {
    reached: Arc<Semaphore>,
    go: Arc<Semaphore>,
}
#[async_trait::async_trait]
impl Step for Wait {
    const NAME: &'static str = "test.wait";
    type Output = ();
    async fn run(&self, _: &StepContext) -> Result<(), StepError> {
        self.reached.add_permits(1);
        self.go.acquire().await.map_err(StepError::fail)?.forget();
        Ok(())
    }
}
#[async_trait::async_trait]
impl Compensate for Wait {
    async fn compensate(&self, _: &StepContext, _: Option<()>) -> Result<(), StepError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_epoch_went_back_stops_and_undoes_nothing() {
    let harness = Harness::start().await.unwrap();
    let wait = Wait { reached: Arc::new(Semaphore::new(0)), go: Arc::new(Semaphore::new(0)) };
    let step = wait.clone();
    let tenantry = harness.tenantry(|b| migrated(b).before_activation(step)).await.unwrap();
    let id = tenantry.provision("acme").start().await.unwrap();
    wait.reached.acquire().await.unwrap().forget();
    let before = auditor::on_server(&harness).await;
    assert!(before.len() > 4, "there is something to undo: {before:?}");
    // The standby knows of another worker than the one that is at work.
    forget(&harness, "UPDATE tenantry.epochs SET epoch = epoch + 7").await;
    wait.go.add_permits(1);
    while sessions(&harness, id).await > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let state = tenantry.operations().get(id).await.unwrap().unwrap();
    assert_eq!(state.status, OperationStatus::Running, "it has written nothing more: {state:?}");
    assert_eq!(auditor::on_server(&harness).await, before, "and undone nothing");
    tenantry.close().await;
}

async fn sessions(harness: &Harness, id: tenantry::OperationId) -> i64 {
    const SESSIONS: &str =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'tenantry/' || $1 || '/%'";
    let mut server = auditor::superuser(harness).await;
    sqlx::query_scalar(SESSIONS).bind(id.to_string()).fetch_one(&mut server).await.unwrap()
}

#[tokio::test]
async fn a_database_whose_intent_was_forgotten_is_reported_and_not_touched() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| migrated(b).database_name(|n, _| format!("db_of_{}", n.slug))).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let before = auditor::on_server(&harness).await;
    // The whole provisioning is lost with the old primary.
    forget(&harness, "DELETE FROM tenantry.tenant_databases").await;
    forget(&harness, "DELETE FROM tenantry.tenant_database_users").await;
    forget(&harness, "DELETE FROM tenantry.placements").await;
    forget(&harness, "DELETE FROM tenantry.credentials WHERE owner LIKE 'tenant:%'").await;
    forget(&harness, "DELETE FROM tenantry.tenants").await;
    forget(&harness, "UPDATE tenantry.database_servers SET tenants = 0").await;
    let error = tenantry.provision("acme").await.unwrap_err();
    let ProvisionError::Failed(failure) = &error else { panic!("{error:?}") };
    assert!(matches!(failure.cause.downcast_ref(), Some(ClusterError::Foreign { .. })), "{failure:?}");
    assert_eq!(auditor::on_server(&harness).await, before, "found, named and left alone");
}

/// The worker lives on, and takes for true what the landlord has forgotten in a crash: the tenant's place, and the progress
/// that followed, were committed without a wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_outlives_a_crash_of_the_landlord_does_again_what_was_forgotten() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    // Tenant, place and secrets are written; the intent of what comes next is on its way.
    let stopped = Stopped::at(&harness, &tenantry, "acme".into(), "record", 3).await.expect("on its way");
    forget(&harness, "UPDATE tenantry.operations SET done = 1").await;
    forget(&harness, "DELETE FROM tenantry.placements").await;
    forget(&harness, "UPDATE tenantry.database_servers SET tenants = 0").await;
    // What recovery from a crash does with an unlogged table.
    forget(&harness, "DELETE FROM tenantry.incarnation").await;
    let acme = stopped.wakes().await.unwrap();
    let places: i64 =
        sqlx::query_scalar("SELECT count(*) FROM tenantry.placements").fetch_one(harness.landlord()).await.unwrap();
    assert_eq!(places, 1, "a tenant without a place could never be removed");
    tenantry.resolve("acme").await.unwrap().execute("SELECT count(*) FROM notes").await.unwrap();
    tenantry.purge(acme.tenant.id()).force().await.unwrap();
    assert_eq!(auditor::on_server(&harness).await, Vec::<String>::new(), "nothing of it is left");
}

/// Recovery from a crash empties what is unlogged, so that each worker's hold ends with it.
#[tokio::test]
async fn a_crash_begins_a_new_incarnation() {
    let server = tenantry::testing::TestServer::builder().local_only().start().await.unwrap();
    let server: &'static _ = Box::leak(Box::new(server));
    let harness = Harness::on(server).await.unwrap();
    let incarnation = async || {
        let id = sqlx::query_scalar::<_, sqlx::types::Uuid>("SELECT tenantry.current_incarnation()");
        id.fetch_one(harness.landlord()).await
    };
    let before = incarnation().await.unwrap();
    assert_eq!(incarnation().await.unwrap(), before);
    server.crash().await.unwrap();
    // The pool's connections are gone; one of its next ones is a new one.
    let after = loop {
        match incarnation().await {
            Ok(id) => break id,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_ne!(after, before);
}
