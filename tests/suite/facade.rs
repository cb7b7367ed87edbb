//! The facade around the verbs: background work, readiness, closing, operations by hand.
use crate::auditor::assert_nothing;
use crate::lanes::Stopped;
use crate::provision::migrated;
use async_trait::async_trait;
use futures_util::TryStreamExt;
use sqlx::Executor;
use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tenantry::error::{ChangeError, FailureState, ProvisionError, ResolveError, RunError, StepError, StoreError};
use tenantry::journal::{Begun, Intent, Journal, PgJournal, Progress};
use tenantry::operation::{Lane, OperationId, OperationStatus, Subject};
use tenantry::secret::CredentialId;
use tenantry::step::{Step, StepContext};
use tenantry::testing::Harness;
use tenantry::vault::{LocalKeyring, PgVault, VaultWriter};
use tenantry::{Builder, TenantId, Tenantry, sqlx};
use tokio::sync::{Notify, oneshot};

const MINUTE: Duration = Duration::from_secs(60);

/// Asks until the answer is yes.
async fn until(what: &str, mut yes: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if yes().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: never");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_beats_recovers_and_leaves() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let stopped = Stopped::at(&harness, &tenantry, "acme".into(), "record", 5).await.expect("on its way");
    stopped.dies(harness.landlord()).await;
    assert_eq!(tenantry.nodes().live(MINUTE).await.unwrap().len(), 0);
    let (stop, stopping) = oneshot::channel::<()>();
    let running = tokio::spawn(tenantry.run(stopping));
    until("a heartbeat", async || tenantry.nodes().live(MINUTE).await.unwrap().len() == 1).await;
    let second = tokio::time::timeout(MINUTE / 6, tenantry.run(std::future::pending::<()>())).await;
    assert!(matches!(second, Ok(Err(RunError::AlreadyRunning))), "{second:?}");
    until("recovery", async || tenantry.operations().open().await.unwrap().is_empty()).await;
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1 FROM notes").await.unwrap();
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(tenantry.nodes().live(MINUTE).await.unwrap(), [], "a node that ends says so");
    tenantry.run(std::future::ready(())).await.expect("and may run again");
}

#[tokio::test]
async fn a_readiness_probe_hears_what_is_wrong() {
    let harness = Harness::start().await.unwrap();
    let bare: Builder = migrated(Tenantry::builder(harness.landlord().clone()).keys(harness.keys().clone()));
    let tenantry = bare.build().await.unwrap();
    let codes = async || tenantry.problems().await.into_iter().map(|p| p.code).collect::<Vec<_>>();
    assert_eq!(codes().await, ["no_server"]);
    tenantry.servers().set_up("main", harness.server().admin_options()).prefix(harness.prefix()).await.unwrap();
    assert_eq!(codes().await, Vec::<&str>::new());
    // Another node seals with a key that this one was not given.
    let ring = LocalKeyring::from_text("k2:oRqXTi4jD3PHGrDq0bR3rV4nXB6Vd1pD9yVYCyG0l3Q=").unwrap();
    let other = PgVault::new(harness.landlord().clone(), Arc::new(ring));
    let by = tenantry::operation::FencingToken { operation: OperationId::new(), epoch: 1 };
    other.fence(by.operation, 1).await.unwrap();
    let id = CredentialId::login(TenantId::new(), &"t".parse().unwrap(), &"t_v1".parse().unwrap(), 1);
    other.put(&id, &"x".to_owned().into(), by).await.unwrap();
    assert_eq!(codes().await, ["keys"]);
    other.forget(&id, by).await.unwrap();
    tenantry.close().await;
    assert_eq!(codes().await, ["closed"]);
    harness.landlord().execute("DROP TABLE tenantry.nodes").await.unwrap();
    assert_eq!(codes().await, ["closed", "schema"]);
}

/// Says that it is at work, and waits to be told to end.
struct Slow(Arc<Notify>, Arc<Notify>);
#[async_trait]
impl Step for Slow {
    const NAME: &'static str = "slow";
    type Output = ();
    async fn run(&self, _: &StepContext) -> Result<(), StepError> {
        self.0.notify_one();
        self.1.notified().await;
        Ok(())
    }
}
/// Stands behind it, and so behind a step boundary.
struct Last;
#[async_trait]
impl Step for Last {
    const NAME: &'static str = "last";
    type Output = ();
    async fn run(&self, _: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_waits_for_a_step_boundary_and_another_node_goes_on_at_once() {
    let harness = Harness::start().await.unwrap();
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let configure = |b| migrated(b).after_activation(Slow(begun.clone(), go_on.clone())).after_activation(Last);
    let (one, two) = (harness.tenantry(configure).await.unwrap(), harness.tenantry(configure).await.unwrap());
    let operation = one.provision("acme").start().await.unwrap();
    begun.notified().await;
    let closing = tokio::spawn({
        let one = one.clone();
        async move { one.close().await }
    });
    until("closing", async || one.problems().await.iter().any(|p| p.code == "closed")).await;
    assert!(matches!(one.provision("late").await, Err(ProvisionError::Closed)));
    assert!(matches!(one.provision("late").start().await, Err(ProvisionError::Closed)));
    assert!(matches!(one.suspend("acme").await, Err(ChangeError::Closed)));
    assert!(!closing.is_finished(), "an operation is in the middle of a step");
    go_on.notify_one();
    closing.await.unwrap();
    assert!(matches!(one.resolve("acme").await, Err(ResolveError::Closed)));
    let left = two.operations().get(operation).await.unwrap().unwrap();
    assert_eq!((left.status, left.done + 1), (OperationStatus::Running, left.total), "at the boundary");
    let report = two.operations().recover().await.unwrap();
    assert_eq!((report.finished, report.left), (1, 0), "no lease is waited for");
}

#[tokio::test]
async fn a_long_history_is_read_to_its_end() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let journal = PgJournal::new(harness.landlord().clone());
    let subject = Subject::Tenant(TenantId::new());
    let intent = Intent::new(OperationId::new(), "long", Lane::Change, subject);
    let Begun::New(held) = journal.begin(&intent).await.unwrap() else { panic!("its lane is free") };
    for n in 1..=250 {
        let mut progress = Progress::of(&held);
        if n == 250 {
            progress.status = OperationStatus::Done;
        }
        journal.record(held.fencing_token(), &progress).await.unwrap();
    }
    let seqs = async |after| {
        let events: Vec<_> = tenantry.operations().events(held.id, after).try_collect().await.unwrap();
        events.into_iter().map(|e| e.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(0).await, (1..=250).collect::<Vec<_>>());
    assert_eq!(seqs(199).await, (200..=250).collect::<Vec<_>>(), "a stream resumes where it stopped");
}

/// Cannot be done until a person has mended something.
struct Mended(Arc<AtomicBool>);
#[async_trait]
impl Step for Mended {
    const NAME: &'static str = "mended";
    type Output = ();
    async fn run(&self, _: &StepContext) -> Result<(), StepError> {
        if self.0.load(SeqCst) { Ok(()) } else { Err(StepError::fail("the contract is missing")) }
    }
}

#[tokio::test]
async fn what_waits_for_a_person_is_resumed_and_not_undone_once_it_is_published() {
    let harness = Harness::start().await.unwrap();
    let mended = Arc::new(AtomicBool::new(false));
    let tenantry = harness.tenantry(|b| migrated(b).after_activation(Mended(mended.clone()))).await.unwrap();
    let error = tenantry.provision("acme").key("k").await.unwrap_err();
    let ProvisionError::Failed(failure) = &error else { panic!("{error:?}") };
    assert_eq!((failure.step.as_str(), failure.state), ("mended", FailureState::Parked));
    let id = failure.operation;
    let refused = tenantry.operations().undo(id).await;
    assert!(matches!(refused, Err(ChangeError::Landlord(StoreError::Conflict(_)))), "{refused:?}");
    let again = tenantry.operations().resume(id).await.unwrap();
    assert_eq!(again.status, OperationStatus::Parked, "it is still missing");
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1 FROM notes").await.expect("its tenant works meanwhile");
    mended.store(true, SeqCst);
    assert_eq!(tenantry.operations().resume(id).await.unwrap().status, OperationStatus::Done);
    assert_eq!(tenantry.provision("acme").key("k").into_future().await.unwrap().operation, id);
    let over = tenantry.operations().resume(id).await;
    assert!(matches!(over, Err(StoreError::Conflict(_))), "{over:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_operation_can_be_undone_by_hand() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let stopped = Stopped::at(&harness, &tenantry, "acme".into(), "record", 9).await.expect("on its way");
    let open = tenantry.operations().open().await.unwrap().remove(0);
    let running = tenantry.operations().undo(open.id).await;
    assert!(matches!(running, Err(ChangeError::Landlord(StoreError::Conflict(_)))), "it is not parked: {running:?}");
    let journal = PgJournal::new(harness.landlord().clone());
    let fence = Intent::new(OperationId::new(), "by hand", Lane::Preempt, open.subject.clone());
    let Begun::New(fence) = journal.begin(&fence).await.unwrap() else { panic!("its lane is free") };
    journal.park_change(&open.subject, fence.fencing_token()).await.unwrap();
    let mut end = Progress::of(&fence);
    end.status = OperationStatus::Done;
    journal.record(fence.fencing_token(), &end).await.unwrap();
    assert_eq!(tenantry.operations().undo(open.id).await.unwrap().status, OperationStatus::Undone);
    drop(stopped.wakes().await);
    assert_nothing(&harness, "after an undo by hand").await;
}

/// On the very node that had the tenant's connections at hand.
#[tokio::test]
async fn what_a_node_has_cached_ends_with_a_change() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let first = tenantry.resolve("acme").await.unwrap().tenant().id();
    tenantry.suspend("acme").reason("unpaid").await.unwrap();
    assert!(matches!(tenantry.resolve("acme").await, Err(ResolveError::Suspended(_))));
    tenantry.activate("acme").await.unwrap();
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1 FROM notes").await.unwrap();
    tenantry.purge("acme").force().await.unwrap();
    assert!(matches!(tenantry.resolve("acme").await, Err(ResolveError::Unknown)));
    let made = tenantry.provision("acme").await.unwrap();
    let again = tenantry.resolve("acme").await.unwrap();
    assert_eq!(again.tenant().id(), made.tenant.id());
    assert_ne!(again.tenant().id(), first);
    again.execute("SELECT 1 FROM notes").await.unwrap();
    let reasons: Vec<Option<String>> =
        sqlx::query_scalar("SELECT reason FROM tenantry.operations WHERE kind = 'suspend'")
            .fetch_all(harness.landlord())
            .await
            .unwrap();
    assert_eq!(reasons, [Some("unpaid".into())], "the history says why");
}
