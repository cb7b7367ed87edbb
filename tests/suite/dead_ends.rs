//! An open operation that neither goes forward nor ends by itself: an administrator resumes it, undoes it, skips the
//! step, or abandons it. Afterwards the lane is free, and the tenant can be purged.
mod sweep;

use crate::auditor::{self, assert_nothing};
use crate::provision::migrated;
use async_trait::async_trait;
use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;
use tenantry::error::{ChangeError, FailureState, OperationError, ProvisionError, StepError};
use tenantry::journal::{Intent, Journal, PgJournal};
use tenantry::operation::{Lane, OperationId, OperationState, OperationStatus, Subject};
use tenantry::step::{Compensate, Step, StepContext};
use tenantry::tenant::TenantStatus;
use tenantry::testing::Harness;
use tenantry::{Builder, TenantId, Tenantry, sqlx};
use tokio::sync::Notify;

/// Fails for good, and so does its compensation while the flag is set.
struct Pay {
    is_bank_closed: Arc<AtomicBool>,
    payments: Arc<AtomicU32>,
    compensations: Arc<AtomicU32>,
}
#[async_trait]
impl Step for Pay {
    const NAME: &'static str = "bank.pay";
    type Output = ();
    async fn run(&self, _: &StepContext) -> Result<(), StepError> {
        self.payments.fetch_add(1, SeqCst);
        Err(StepError::fail("the account is overdrawn"))
    }
}
#[async_trait]
impl Compensate for Pay {
    async fn compensate(&self, _: &StepContext, _: Option<()>) -> Result<(), StepError> {
        self.compensations.fetch_add(1, SeqCst);
        if self.is_bank_closed.load(SeqCst) { Err(StepError::fail("the bank has closed down")) } else { Ok(()) }
    }
}

/// Runs recovery until the operation is parked.
async fn recover_until_parked(tenantry: &Tenantry, id: OperationId) -> OperationState {
    for _ in 0..500 {
        tenantry.operations().recover().await.unwrap();
        let state = tenantry.operations().get(id).await.unwrap().unwrap();
        if state.status == OperationStatus::Parked {
            return state;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not parked: {:?}", tenantry.operations().get(id).await.unwrap())
}

/// A compensation that fails with a transient error is repeated for ever; see
/// `waiting_undo_reports_both_causes_on_every_node`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compensation_that_fails_for_good_is_parked_and_can_be_resumed_or_skipped() {
    for is_skipped in [false, true] {
        let harness = Harness::start().await.unwrap();
        let (closed, compensations) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
        let payments = Arc::new(AtomicU32::new(0));
        let (is_bank_closed, counted) = (closed.clone(), payments.clone());
        let pay = Pay { is_bank_closed, payments: counted, compensations: compensations.clone() };
        let quick = (Duration::from_millis(1), Duration::from_millis(5));
        let configure = |b: Builder| migrated(b).before_activation(pay).backoff(quick.0, quick.1);
        let tenantry = harness.tenantry(configure).await.unwrap();
        let error = tenantry.provision("acme").key("k").await.unwrap_err();
        let id = error.operation_id().unwrap();
        let parked = recover_until_parked(&tenantry, id).await;
        assert_eq!((parked.step.as_str(), parked.error.as_deref()), ("bank.pay", Some("the bank has closed down")));
        let attempts = compensations.load(SeqCst);
        assert!((4..=5).contains(&attempts), "{attempts} attempts were made before it was parked");
        let joined = tenantry.provision("acme").key("k").await.unwrap_err();
        let ProvisionError::Failed(failure) = &joined else { panic!("{joined:?}") };
        assert_eq!(failure.state, FailureState::Parked);
        assert!(!failure.to_string().contains("undo(id)"), "the error offers what is not possible: {failure}");
        assert_eq!(
            failure.cause.to_string(),
            "undo is parked at step bank.pay (the bank has closed down)",
            "the error must say that nothing continues by itself"
        );

        if is_skipped {
            let refused = tenantry.operations().skip_step(id, "roles.create", "ops/grace").await;
            assert!(matches!(refused, Err(OperationError::NotSkippable { .. })), "{refused:?}");
            let refused = tenantry.operations().skip_step(id, "no.such", "ops/grace").await;
            assert!(matches!(refused, Err(OperationError::UnknownStep { .. })), "{refused:?}");
            let ended = tenantry.operations().skip_step(id, "bank.pay", "ops/grace: refunded by hand").await.unwrap();
            assert_eq!(ended.status, OperationStatus::Undone);
            assert_eq!(compensations.load(SeqCst), attempts, "a skipped compensation does not run");
        } else {
            let again = tenantry.operations().resume(id).await.unwrap();
            assert_eq!(again.status, OperationStatus::Undoing, "resume continues backward");
            closed.store(false, SeqCst);
            recover_until_ended(&tenantry, id, OperationStatus::Undone).await;
        }
        assert_eq!(payments.load(SeqCst), 1, "an operation that is being undone ran its step again");
        assert_nothing(&harness, "after the undo").await;
        let repeated = tenantry.provision("acme").key("k").await.unwrap_err();
        assert_ne!(repeated.operation_id(), Some(id), "the key can be used again");
    }
}

async fn recover_until_ended(tenantry: &Tenantry, id: OperationId, expected: OperationStatus) {
    for _ in 0..500 {
        tenantry.operations().recover().await.unwrap();
        let status = tenantry.operations().get(id).await.unwrap().unwrap().status;
        if status.is_over() {
            assert_eq!(status, expected);
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not ended: {:?}", tenantry.operations().get(id).await.unwrap())
}

/// An undo that an administrator began is parked by a purge that is undone itself, or by another failure. It continues
/// backward, although no failure started it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undo_that_an_administrator_began_is_never_continued_forward() {
    let harness = Harness::start().await.unwrap();
    let journal = PgJournal::new(harness.landlord().clone());
    let subject = Subject::Tenant(TenantId::new());
    let change = Intent::new(OperationId::new(), "by hand", Lane::Change, subject.clone());
    let preempt = Intent::new(OperationId::new(), "by hand", Lane::Preempt, subject.clone());
    journal.begin(&change).await.unwrap();
    journal.begin(&preempt).await.unwrap();
    let by = tenantry::operation::FencingToken { operation: preempt.id, epoch: 1 };
    journal.park_change(&subject, by).await.unwrap();
    journal.undo_parked(change.id).await.unwrap();
    journal.park_change(&subject, by).await.unwrap();
    let skipped = journal.skip_step(change.id, "any", "ops/grace").await.unwrap();
    assert_eq!(skipped.status, OperationStatus::Undoing);
}

/// Waits until the test releases it.
struct Waits(Arc<Notify>, Arc<Notify>);
#[async_trait]
impl Step for Waits {
    const NAME: &'static str = "waits";
    type Output = ();
    async fn run(&self, _: &StepContext) -> Result<(), StepError> {
        self.0.notify_one();
        self.1.notified().await;
        Ok(())
    }
}
#[async_trait]
impl Compensate for Waits {
    async fn compensate(&self, _: &StepContext, _: Option<()>) -> Result<(), StepError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abandoned_provisioning_stops_its_live_worker_and_its_tenant_can_be_purged() {
    let harness = Harness::start().await.unwrap();
    let (started, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let configure = |b: Builder| migrated(b).before_activation(Waits(started.clone(), release.clone()));
    let tenantry = harness.tenantry(configure).await.unwrap();
    let call = tokio::spawn(tenantry.provision("acme").admin("ada@acme.example").key("k").into_future());
    started.notified().await;
    let open = tenantry.operations().open().await.unwrap().readable.remove(0);
    for reason in ["", "  ", "a\0b", &"x".repeat(4097)] {
        let refused = tenantry.operations().abandon(open.id, reason).await;
        assert!(matches!(refused, Err(OperationError::Reason(_))), "{refused:?}");
    }
    let unknown = tenantry.operations().abandon(OperationId::new(), "ops/grace").await;
    assert!(matches!(unknown, Err(OperationError::Unknown { .. })), "{unknown:?}");

    let ended = tenantry.operations().abandon(open.id, "ops/grace: the bank hangs").await.unwrap();
    assert_eq!(ended.operation.status, OperationStatus::Abandoned);
    for step in ["tenant.create", "database.create", "waits"] {
        assert!(ended.steps.iter().any(|s| s == step), "{step} is missing in {:?}", ended.steps);
    }
    let database = ended.database.clone().expect("the database may remain");
    let remaining = auditor::on_server(&harness).await;
    assert!(remaining.iter().any(|name| name.contains(database.as_str())), "{database} is not in {remaining:?}");
    for role in &ended.roles {
        assert!(role.as_str().starts_with(database.as_str()), "{role}");
    }
    assert_eq!(ended.secrets.len(), 2, "the login's password and the setup link: {:?}", ended.secrets);
    let again = tenantry.operations().abandon(open.id, "ops/grace: twice").await.unwrap();
    assert_eq!(again, ended, "a repetition must return the same");
    let events = PgJournal::new(harness.landlord().clone()).events(open.id, 0, 100).await.unwrap();
    let last = events.last().unwrap();
    assert_eq!((last.reason.as_deref(), last.status), (Some("ops/grace: the bank hangs"), OperationStatus::Abandoned));

    release.notify_one();
    let failure = match call.await.unwrap() {
        Err(ProvisionError::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    };
    assert_eq!((failure.operation, failure.state), (open.id, FailureState::Abandoned));
    let tenant = tenantry.registry().find("acme".into()).await.unwrap().unwrap();
    assert_eq!(tenant.status(), TenantStatus::Provisioning);
    tenantry.purge("acme").force().await.expect("the tenant of an abandoned provisioning can be purged");
    assert_nothing(&harness, "after a purge of the tenant of an abandoned provisioning").await;
    release.notify_one();
    tenantry.provision("acme").admin("ada@acme.example").key("k").await.expect("slug and key are free again");
    let done = tenantry.operations().open().await.unwrap();
    assert!(done.is_empty(), "{done:?}");
}

/// The worker is on another node and dead, and its lease is valid for long. The kind is one that this program does not
/// know.
#[tokio::test]
async fn operation_of_a_dead_worker_or_of_an_unknown_kind_can_be_abandoned_at_once() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let tenant = tenantry.provision("acme").await.unwrap().tenant.id();
    let journal = PgJournal::new(harness.landlord().clone());
    for lane in [Lane::Change, Lane::Preempt] {
        let mut intent = Intent::new(OperationId::new(), "of the future", lane, Subject::Tenant(tenant));
        (intent.lease, intent.worker) = (Duration::from_secs(3600), String::from("dead"));
        journal.begin(&intent).await.unwrap();
        let busy = tenantry.migrate("acme").await.unwrap_err();
        assert!(matches!(&busy, ChangeError::Busy { operation, .. } if *operation == intent.id), "{busy:?}");
        let skipped = tenantry.operations().skip_step(intent.id, "any", "ops/grace").await;
        assert!(matches!(skipped, Err(OperationError::UnknownKind { .. })), "{skipped:?}");
        let resumed = tenantry.operations().resume(intent.id).await;
        assert!(matches!(resumed, Err(OperationError::NotParked { .. })), "{resumed:?}");
        tenantry.operations().abandon(intent.id, "ops/grace: the node is gone").await.unwrap();
        tenantry.migrate("acme").await.expect("the lane is free");
        let old = tenantry::operation::FencingToken { operation: intent.id, epoch: 1 };
        assert!(journal.check(old).await.is_err(), "the old worker must not write any more");
    }
    let done = tenantry.provision("umbrella").await.unwrap().operation;
    let refused = tenantry.operations().abandon(done, "ops/grace").await;
    assert!(
        matches!(refused, Err(OperationError::Over { status: OperationStatus::Done, .. })),
        "an operation that is done cannot be abandoned: {refused:?}"
    );
}

/// A program of an earlier version reads the same rows. It fails on a status or a lane that it does not know, so only
/// texts that it knows are stored.
#[tokio::test]
async fn rows_of_abandoned_and_follow_up_operations_have_only_texts_of_earlier_versions() {
    let harness = Harness::start().await.unwrap();
    struct Never;
    #[async_trait]
    impl Step for Never {
        const NAME: &'static str = "never";
        type Output = ();
        async fn run(&self, _: &StepContext) -> Result<(), StepError> {
            Err(StepError::fail("never"))
        }
    }
    let tenantry = harness.tenantry(|b| migrated(b).after_activation(Never)).await.unwrap();
    let work = tenantry.provision("acme").await.unwrap().follow_up.unwrap();
    tenantry.operations().abandon(work.id, "ops/grace").await.unwrap();
    const ROWS: &str = "SELECT o.lane, o.subject, o.status, e.status FROM tenantry.operations o
        JOIN tenantry.operation_events e ON e.operation = o.id WHERE o.id = $1 ORDER BY e.seq DESC LIMIT 1";
    let row: (String, String, String, String) =
        sqlx::query_as(ROWS).bind(work.id.as_uuid()).fetch_one(harness.landlord()).await.unwrap();
    let tenant = work.subject.tenant().unwrap();
    assert_eq!(row, ("change".into(), format!("tenant:{tenant}"), "undone".into(), "undone".into()));
}
