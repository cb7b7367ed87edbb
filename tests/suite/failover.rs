//! A landlord that loses its last commits, in a failover to an asynchronous standby or in a crash. A worker that
//! detects the loss stops or repeats what was lost. It undoes nothing and takes over no database that it finds.
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
use tenantry::testing::server::NoServer;
use tokio::sync::Semaphore;

/// Simulates lost commits: runs a statement that reverts what they wrote.
async fn lose_commits(harness: &Harness, statement: &'static str) {
    let done = harness.landlord().execute(statement).await.unwrap();
    assert!(done.rows_affected() > 0, "the statement reverted no row: {statement}");
}

/// A step of the application that signals when it is reached, and then waits for a permit.
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
async fn worker_whose_epoch_changed_stops_and_undoes_nothing() {
    let harness = Harness::start().await.unwrap();
    let wait = Wait { reached: Arc::new(Semaphore::new(0)), go: Arc::new(Semaphore::new(0)) };
    let step = wait.clone();
    let tenantry = harness.tenantry(|b| migrated(b).before_activation(step)).await.unwrap();
    let id = tenantry.provision("acme").start().await.unwrap();
    wait.reached.acquire().await.unwrap().forget();
    let before = auditor::on_server(&harness).await;
    assert!(before.len() > 4, "nothing has been created that an undo could remove: {before:?}");
    // The epoch in the landlord is no longer that of the running worker.
    lose_commits(&harness, "UPDATE tenantry.epochs SET epoch = epoch + 7").await;
    wait.go.add_permits(1);
    while count_sessions(&harness, id).await > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let state = tenantry.operations().get(id).await.unwrap().unwrap();
    assert_eq!(state.status, OperationStatus::Running, "the worker must not write after the epoch changed: {state:?}");
    assert_eq!(auditor::on_server(&harness).await, before, "the worker must not undo anything");
    tenantry.close().await;
}

/// Number of the operation's sessions on the server.
async fn count_sessions(harness: &Harness, id: tenantry::OperationId) -> i64 {
    const SESSIONS: &str =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'tenantry/' || $1 || '/%'";
    let mut server = auditor::superuser(harness).await;
    sqlx::query_scalar(SESSIONS).bind(id.to_string()).fetch_one(&mut server).await.unwrap()
}

#[tokio::test]
async fn provision_reports_a_database_whose_intent_was_lost_and_does_not_change_it() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| migrated(b).database_name(|n, _| format!("db_of_{}", n.slug))).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let before = auditor::on_server(&harness).await;
    // All records of the first provisioning are lost with the old primary.
    lose_commits(&harness, "DELETE FROM tenantry.tenant_databases").await;
    lose_commits(&harness, "DELETE FROM tenantry.tenant_database_users").await;
    lose_commits(&harness, "DELETE FROM tenantry.placements").await;
    lose_commits(&harness, "DELETE FROM tenantry.credentials WHERE owner LIKE 'tenant:%'").await;
    lose_commits(&harness, "DELETE FROM tenantry.tenants").await;
    lose_commits(&harness, "UPDATE tenantry.database_servers SET tenants = 0").await;
    let error = tenantry.provision("acme").await.unwrap_err();
    let ProvisionError::Failed(failure) = &error else { panic!("{error:?}") };
    assert!(matches!(failure.cause.downcast_ref(), Some(ClusterError::Foreign { .. })), "{failure:?}");
    assert_eq!(auditor::on_server(&harness).await, before, "provision changed objects that it did not create");
}

/// The landlord crashes and loses the tenant's placement and the progress after it, which were committed
/// asynchronously. The worker survives and does not know of the loss.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_that_survives_a_crash_of_the_landlord_repeats_lost_steps() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    // Tenant, placement and secrets are written. The record that carries the next intent is delayed.
    let stopped = Stopped::at(&harness, &tenantry, "acme".into(), "record", 3)
        .await
        .expect("the provisioning reaches this record");
    lose_commits(&harness, "UPDATE tenantry.operations SET done = 1").await;
    lose_commits(&harness, "DELETE FROM tenantry.placements").await;
    lose_commits(&harness, "UPDATE tenantry.database_servers SET tenants = 0").await;
    // In crash recovery PostgreSQL empties unlogged tables.
    lose_commits(&harness, "DELETE FROM tenantry.incarnation").await;
    let acme = stopped.resume().await.unwrap();
    let placements: i64 =
        sqlx::query_scalar("SELECT count(*) FROM tenantry.placements").fetch_one(harness.landlord()).await.unwrap();
    assert_eq!(placements, 1, "the lost placement must be written again: purge needs it");
    tenantry.resolve("acme").await.unwrap().execute("SELECT count(*) FROM notes").await.unwrap();
    tenantry.purge(acme.tenant.id()).force().await.unwrap();
    assert_eq!(auditor::on_server(&harness).await, Vec::<String>::new(), "the purge left objects on the server");
}

/// Crash recovery empties the unlogged table `incarnation`, so records of workers from before the crash are refused.
#[tokio::test]
async fn crash_of_the_landlord_begins_a_new_incarnation() {
    let server = match tenantry::testing::TestServer::builder().local_only().start().await {
        Err(NoServer::Local(error)) => {
            println!("!!! SKIPPED: no local server can be started: {error} !!!");
            return;
        }
        started => started.unwrap(),
    };
    let server: &'static _ = Box::leak(Box::new(server));
    let harness = Harness::on(server).await.unwrap();
    let incarnation = async || {
        let id = sqlx::query_scalar::<_, sqlx::types::Uuid>("SELECT tenantry.current_incarnation()");
        id.fetch_one(harness.landlord()).await
    };
    let before = incarnation().await.unwrap();
    assert_eq!(incarnation().await.unwrap(), before, "the incarnation changed without a crash");
    server.crash().await.unwrap();
    // The crash broke the pooled connections. Retry until the pool has opened a new one.
    let after = loop {
        match incarnation().await {
            Ok(id) => break id,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_ne!(after, before, "the crash did not change the incarnation");
}
