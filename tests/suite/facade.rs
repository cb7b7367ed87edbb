//! The facade apart from its verbs: background work (`run`), the readiness probe (`problems`), `close`, and the
//! operations that an operator inspects, resumes or undoes.
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
use tenantry::error::{
    ChangeError, OperationError, ProvisionError, RelocateError, ResolveError, RunError, ServerSetupError, StepError,
};
use tenantry::journal::{Begun, Intent, Journal, PgJournal, Progress};
use tenantry::operation::{Lane, OperationId, OperationStatus, Subject};
use tenantry::secret::CredentialId;
use tenantry::step::{Step, StepContext};
use tenantry::testing::Harness;
use tenantry::vault::{LocalKeyring, PgVault, VaultWriter};
use tenantry::{Builder, TenantId, Tenantry, sqlx};
use tokio::sync::{Notify, oneshot};

const MINUTE: Duration = Duration::from_secs(60);

/// Waits until the condition is true. Panics after 20 seconds; `what` names the condition.
async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 20 seconds: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_sends_heartbeats_recovers_operations_and_leaves_when_stopped() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let stopped = Stopped::at(&harness, &tenantry, "acme".into(), "record", 5)
        .await
        .expect("the provisioning reaches this record");
    stopped.dies(harness.landlord()).await;
    assert_eq!(tenantry.nodes().list_live(MINUTE).await.unwrap().len(), 0);
    let (stop, stopping) = oneshot::channel::<()>();
    let running = tokio::spawn(tenantry.run(stopping));
    wait_until("a heartbeat", async || tenantry.nodes().list_live(MINUTE).await.unwrap().len() == 1).await;
    let second = tokio::time::timeout(MINUTE / 6, tenantry.run(std::future::pending::<()>())).await;
    assert!(matches!(second, Ok(Err(RunError::AlreadyRunning))), "{second:?}");
    wait_until("recovery", async || tenantry.operations().open().await.unwrap().is_empty()).await;
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1 FROM notes").await.unwrap();
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(
        tenantry.nodes().list_live(MINUTE).await.unwrap(),
        [],
        "a node that stops must remove its heartbeat row"
    );
    tenantry.run(std::future::ready(())).await.expect("a stopped node can run again");
}

#[tokio::test]
async fn problems_reports_each_cause_of_unreadiness() {
    let harness = Harness::start().await.unwrap();
    let bare: Builder = migrated(Tenantry::builder(harness.landlord().clone()).keys(harness.keys().clone()));
    let tenantry = bare.build().await.unwrap();
    let codes = async || tenantry.problems().await.into_iter().map(|p| p.code).collect::<Vec<_>>();
    assert_eq!(codes().await, ["no_server"]);
    tenantry.servers().set_up("main", harness.server().admin_options()).prefix(harness.prefix()).await.unwrap();
    assert_eq!(codes().await, Vec::<&str>::new());
    // Another node seals a secret with a key that this node does not have.
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

/// Notifies the first handle when it runs, and ends when the second one is notified.
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
/// Follows `Slow`, so that the operation has a step boundary between them.
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
async fn close_waits_for_a_step_boundary_and_another_node_continues_at_once() {
    let harness = Harness::start().await.unwrap();
    let (started, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let configure = |b| migrated(b).after_activation(Slow(started.clone(), release.clone())).after_activation(Last);
    let (one, two) = (harness.tenantry(configure).await.unwrap(), harness.tenantry(configure).await.unwrap());
    one.provision("acme").start().await.unwrap();
    started.notified().await;
    let closing = tokio::spawn({
        let one = one.clone();
        async move { one.close().await }
    });
    wait_until("closing", async || one.problems().await.iter().any(|p| p.code == "closed")).await;
    assert!(matches!(one.provision("umbrella").await, Err(ProvisionError::Closed)));
    assert!(matches!(one.provision("umbrella").start().await, Err(ProvisionError::Closed)));
    assert!(matches!(one.suspend("acme").await, Err(ChangeError::Closed)));
    let set_up = one.servers().set_up("main", harness.server().admin_options()).prefix(harness.prefix()).await;
    assert!(matches!(set_up, Err(ServerSetupError::Closed)), "{set_up:?}");
    let relocated = one.servers().relocate("main", "db2.invalid", 5432).await;
    assert!(matches!(relocated, Err(RelocateError::Closed)), "{relocated:?}");
    assert!(!closing.is_finished(), "close must wait while a step runs");
    release.notify_one();
    closing.await.unwrap();
    assert!(matches!(one.resolve("acme").await, Err(ResolveError::Closed)));
    let state = two.operations().open().await.unwrap().readable.remove(0);
    assert_eq!(
        (state.kind.as_str(), state.status, state.done + 1),
        ("follow_up", OperationStatus::Running, state.total),
        "the operation must stop after the slow step"
    );
    let report = two.operations().recover().await.unwrap();
    assert_eq!((report.finished, report.left), (1, 0), "recovery must not wait for the lease of the closed node");
}

#[tokio::test]
async fn events_returns_a_history_of_several_pages_completely() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let journal = PgJournal::new(harness.landlord().clone());
    let subject = Subject::Tenant(TenantId::new());
    let intent = Intent::new(OperationId::new(), "long", Lane::Change, subject);
    let Begun::New(record) = journal.begin(&intent).await.unwrap() else {
        panic!("begin created no operation although its lane is free")
    };
    for n in 1..=250 {
        let mut progress = Progress::of(&record);
        if n == 250 {
            progress.status = OperationStatus::Done;
        }
        journal.record(record.fencing_token(), &progress).await.unwrap();
    }
    let seqs = async |after| {
        let events: Vec<_> = tenantry.operations().events(record.id, after).try_collect().await.unwrap();
        events.into_iter().map(|e| e.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(0).await, (1..=250).collect::<Vec<_>>());
    assert_eq!(
        seqs(199).await,
        (200..=250).collect::<Vec<_>>(),
        "a stream must resume after the given sequence number"
    );
}

/// Fails until the flag is set, as if an operator had to correct something first.
struct NeedsOperator(Arc<AtomicBool>);
#[async_trait]
impl Step for NeedsOperator {
    const NAME: &'static str = "mended";
    type Output = ();
    async fn run(&self, _: &StepContext) -> Result<(), StepError> {
        if self.0.load(SeqCst) { Ok(()) } else { Err(StepError::fail("the contract is missing")) }
    }
}

#[tokio::test]
async fn parked_follow_up_of_an_active_tenant_can_be_resumed_but_not_undone() {
    let harness = Harness::start().await.unwrap();
    let corrected = Arc::new(AtomicBool::new(false));
    let tenantry = harness.tenantry(|b| migrated(b).after_activation(NeedsOperator(corrected.clone()))).await.unwrap();
    let made = tenantry.provision("acme").key("k").await.unwrap();
    let work = made.follow_up.expect("the follow-up work is open");
    assert_eq!((work.step.as_str(), work.status), ("mended", OperationStatus::Parked));
    assert_eq!(work.error.as_deref(), Some("the contract is missing"));
    let id = work.id;
    let refused = tenantry.operations().undo(id).await;
    assert!(matches!(refused, Err(OperationError::PastPivot { operation, .. }) if operation == id), "{refused:?}");
    let resumed = tenantry.operations().resume(id).await.unwrap();
    assert_eq!(
        resumed.status,
        OperationStatus::Parked,
        "resume must park the operation again while the contract is missing"
    );
    let db = tenantry.resolve("acme").await.unwrap();
    db.execute("SELECT 1 FROM notes").await.expect("the tenant works while its follow-up work is parked");
    corrected.store(true, SeqCst);
    assert_eq!(tenantry.operations().resume(id).await.unwrap().status, OperationStatus::Done);
    let joined = tenantry.provision("acme").key("k").into_future().await.unwrap();
    assert_eq!((joined.operation, joined.follow_up), (made.operation, None));
    let repeated = tenantry.operations().resume(id).await;
    assert!(matches!(repeated, Err(OperationError::Over { .. })), "{repeated:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_operation_can_be_undone_by_an_operator() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let stopped = Stopped::at(&harness, &tenantry, "acme".into(), "record", 9)
        .await
        .expect("the provisioning reaches this record");
    let open = tenantry.operations().open().await.unwrap().readable.remove(0);
    let running = tenantry.operations().undo(open.id).await;
    assert!(
        matches!(running, Err(OperationError::NotParked { .. })),
        "undo must refuse an operation that is not parked: {running:?}"
    );
    let journal = PgJournal::new(harness.landlord().clone());
    let preempt = Intent::new(OperationId::new(), "by hand", Lane::Preempt, open.subject.clone());
    let Begun::New(preempt) = journal.begin(&preempt).await.unwrap() else {
        panic!("begin created no operation although its lane is free")
    };
    journal.park_change(&open.subject, preempt.fencing_token()).await.unwrap();
    let mut end = Progress::of(&preempt);
    end.status = OperationStatus::Done;
    journal.record(preempt.fencing_token(), &end).await.unwrap();
    assert_eq!(tenantry.operations().undo(open.id).await.unwrap().status, OperationStatus::Undone);
    drop(stopped.resume().await);
    assert_nothing(&harness, "after an undo by an operator").await;
}

/// The changes run on the node that has connections to the tenant in its cache.
#[tokio::test]
async fn cached_connections_are_dropped_by_changes_on_the_same_node() {
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
    assert_eq!(reasons, [Some("unpaid".into())], "the operation must store the reason");
}
