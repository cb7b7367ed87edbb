//! Work after a tenant's activation: the delivery of its setup link and the application's steps after activation. It is
//! an operation of its own, which blocks no other one, is repeated, and is neither lost nor doubled by a crash.
use crate::auditor::{self, assert_nothing};
use crate::engine::failing::{Failing, Lost, Outage};
use crate::provision::{MIGRATIONS, migrated};
use async_trait::async_trait;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tenantry::error::{OperationError, StepError, StoreError};
use tenantry::journal::{Journal, PgJournal};
use tenantry::operation::{FencingToken, OperationId, OperationState, OperationStatus, Subject};
use tenantry::provision::{Provision, ProvisionConfig, Provisioner};
use tenantry::saga::{CallOptions, Engine, Settings};
use tenantry::step::{Step, StepContext};
use tenantry::tenant::TenantStatus;
use tenantry::testing::Harness;
use tenantry::tokens::{LinkDelivery, SetupLink};
use tenantry::{Builder, Tenant, Tenantry, sqlx};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What the mail server answers.
#[derive(Clone, Copy)]
enum Answer {
    /// The mailbox does not exist.
    Rejects,
    /// Try again later.
    Defers,
    Accepts,
    /// No answer.
    Hangs,
}

/// A mail server that the test controls, and the links that it has accepted.
#[derive(Clone)]
struct Mail(Arc<Mutex<(Answer, Vec<String>)>>);
impl Mail {
    fn new(answer: Answer) -> Self {
        Self(Arc::new(Mutex::new((answer, vec![]))))
    }
    fn set(&self, answer: Answer) {
        self.0.lock().unwrap().0 = answer;
    }
    fn accepted(&self) -> Vec<String> {
        self.0.lock().unwrap().1.clone()
    }
}
#[async_trait]
impl LinkDelivery for Mail {
    async fn deliver(&self, tenant: &Tenant, _: &SetupLink) -> Result<(), StepError> {
        let answer = self.0.lock().unwrap().0;
        match answer {
            Answer::Rejects => Err(StepError::fail("550 no such mailbox")),
            Answer::Defers => Err(StepError::retry("450 try again later")),
            Answer::Hangs => std::future::pending().await,
            Answer::Accepts => {
                self.0.lock().unwrap().1.push(tenant.slug().to_string());
                Ok(())
            }
        }
    }
}

/// Writes a note through the application's login, and counts how often it ran.
struct Note(Arc<AtomicU32>);
#[async_trait]
impl Step for Note {
    const NAME: &'static str = "note.write";
    type Output = String;
    async fn run(&self, cx: &StepContext) -> Result<String, StepError> {
        self.0.fetch_add(1, SeqCst);
        let mut db = cx.connect().await?;
        let text = format!("{} {}", cx.input::<String>()?, cx.idempotency_key());
        sqlx::query("INSERT INTO notes (text) VALUES ($1)").bind(&text).execute(&mut db).await?;
        Ok(text)
    }
}

async fn with_mail(harness: &Harness, mail: &Mail) -> Tenantry {
    let quick = (Duration::from_millis(1), Duration::from_millis(5));
    harness.tenantry(|b| migrated(b).link_delivery(mail.clone()).backoff(quick.0, quick.1)).await.unwrap()
}

async fn get(tenantry: &Tenantry, id: OperationId) -> OperationState {
    tenantry.operations().get(id).await.unwrap().unwrap()
}

/// Runs recovery until no operation is open. An operation whose worker was stopped in a claim waits for a lease of 30 s.
async fn recover_all(tenantry: &Tenantry) {
    let begun = Instant::now();
    while !tenantry.operations().open().await.unwrap().is_empty() {
        tenantry.operations().recover().await.unwrap();
        let open = tenantry.operations().open().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(90), "operations are still open after 90 s: {open:?}");
    }
}

/// Runs recovery until the operation has ended.
async fn recover(tenantry: &Tenantry, id: OperationId) -> OperationState {
    for _ in 0..500 {
        tenantry.operations().recover().await.unwrap();
        let state = get(tenantry, id).await;
        if state.status.is_over() {
            return state;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the operation did not end: {:?}", get(tenantry, id).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_mail_blocks_no_operation_of_the_tenant_and_is_visible_until_a_purge_ends_it() {
    let harness = Harness::start().await.unwrap();
    let tenantry = with_mail(&harness, &Mail::new(Answer::Rejects)).await;
    let made = tenantry.provision("acme").admin("ada@acme.example").key("k").reason("sign-up").await.unwrap();
    assert_eq!(made.tenant.status(), TenantStatus::Active);
    assert!(made.link.is_some(), "the caller gets a link that was not delivered");
    let work = made.follow_up.expect("the rejected delivery must be reported as open follow-up work");
    assert_eq!((work.status, work.step.as_str()), (OperationStatus::Parked, "link.deliver"));
    assert_eq!((work.error.as_deref(), work.reason.as_deref()), (Some("550 no such mailbox"), Some("sign-up")));

    tenantry.migrate("acme").await.expect("migrate is not blocked");
    tenantry.rotate("acme").await.expect("rotate is not blocked");
    tenantry.suspend("acme").await.expect("suspend is not blocked");
    tenantry.activate("acme").await.expect("activate is not blocked");
    tenantry.archive("acme").await.expect("archive is not blocked");
    tenantry.restore("acme").await.expect("restore is not blocked");
    let open = tenantry.operations().open().await.unwrap();
    assert_eq!(open.iter().map(|o| (o.id, o.status)).collect::<Vec<_>>(), [(work.id, OperationStatus::Parked)]);
    let subject = Subject::Tenant(made.tenant.id());
    let history = PgJournal::new(harness.landlord().clone()).history(&subject).await.unwrap();
    assert!(history.iter().any(|r| r.id == work.id), "the history of the tenant contains its follow-up work");
    let undone = tenantry.operations().undo(work.id).await;
    assert!(matches!(undone, Err(OperationError::PastPivot { .. })), "{undone:?}");

    tenantry.purge("acme").force().await.expect("purge is not blocked");
    assert_eq!(get(&tenantry, work.id).await.status, OperationStatus::Abandoned);
    assert!(tenantry.operations().open().await.unwrap().is_empty());
    assert_nothing(&harness, "after a purge of a tenant with parked follow-up work").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deferred_mail_is_retried_by_recovery_until_it_is_delivered_once() {
    let harness = Harness::start().await.unwrap();
    let mail = Mail::new(Answer::Defers);
    let tenantry = with_mail(&harness, &mail).await;
    let made = tenantry.provision("acme").admin("ada@acme.example").key("k").await.unwrap();
    let work = made.follow_up.expect("the delivery waits for its next attempt");
    assert_eq!(work.status, OperationStatus::Running);
    assert_eq!(work.error.as_deref(), Some("450 try again later"));
    assert!(work.retry_at.is_some());
    mail.set(Answer::Accepts);
    assert_eq!(recover(&tenantry, work.id).await.status, OperationStatus::Done);
    assert_eq!(mail.accepted(), ["acme"]);
    const LINKS: &str = "SELECT (SELECT count(*) FROM tenantry.setup_tokens WHERE delivered_at IS NOT NULL),
        (SELECT count(*) FROM tenantry.credentials WHERE owner LIKE 'tenant:%' AND purpose = 'setup_link')";
    let links: (i64, i64) = sqlx::query_as(LINKS).fetch_one(harness.landlord()).await.unwrap();
    assert_eq!(links, (1, 0), "links that are marked as delivered, and links whose bytes are still stored");
    let joined = tenantry.provision("acme").admin("ada@acme.example").key("k").await.unwrap();
    assert_eq!((joined.operation, joined.follow_up, joined.link.is_none()), (made.operation, None, true));
}

/// The next step after a delivery that is skipped runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skipped_delivery_lets_the_steps_after_it_run_and_records_the_reason() {
    let harness = Harness::start().await.unwrap();
    let (mail, runs) = (Mail::new(Answer::Rejects), Arc::new(AtomicU32::new(0)));
    let configure = |b: Builder| migrated(b).link_delivery(mail.clone()).after_activation(Note(runs.clone()));
    let tenantry = harness.tenantry(configure).await.unwrap();
    let made = tenantry.provision("acme").admin("ada@acme.example").input(&"hello").await.unwrap();
    let work = made.follow_up.unwrap();
    assert_eq!(runs.load(SeqCst), 0);
    // The note is written through the login that the tenant has now.
    tenantry.rotate("acme").grace(Duration::ZERO).await.unwrap();
    let ended = tenantry.operations().skip_step(work.id, "link.deliver", "ops/grace: handed over by phone").await;
    assert_eq!(ended.unwrap().status, OperationStatus::Done);
    let note: String =
        sqlx::query_scalar("SELECT text FROM notes").fetch_one(&tenantry.resolve("acme").await.unwrap()).await.unwrap();
    assert_eq!(note, format!("hello {}/note.write", made.operation), "the key is that of the provisioning");
    let journal = PgJournal::new(harness.landlord().clone());
    let events = journal.events(work.id, 0, 100).await.unwrap();
    let skipped: Vec<_> = events.iter().filter_map(|e| Some((e.step.as_str(), e.reason.as_deref()?))).collect();
    assert_eq!(skipped, [("link.deliver", "ops/grace: handed over by phone")]);
}

/// The mail server never answers. The call does not wait for it, and an administrator can end the work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_delivery_delays_the_call_for_a_limited_time_and_can_be_abandoned() {
    let harness = Harness::start().await.unwrap();
    let configure = |b: Builder| migrated(b).link_delivery(Mail::new(Answer::Hangs)).lease(Duration::from_secs(2));
    let tenantry = harness.tenantry(configure).await.unwrap();
    let begun = Instant::now();
    let made = tenantry.provision("acme").admin("ada@acme.example").await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "the call took {:?}", begun.elapsed());
    let work = made.follow_up.expect("the delivery is still open");
    assert_eq!(work.status, OperationStatus::Running);
    tenantry.migrate("acme").await.expect("migrate is not blocked");
    let ended = tenantry.operations().abandon(work.id, "ops/grace: the mail server is dead").await.unwrap();
    assert_eq!((ended.operation.status, ended.steps), (OperationStatus::Abandoned, vec!["link.deliver".to_owned()]));
    // Waits for the worker, which stops when its next renewal is refused.
    tokio::time::timeout(Duration::from_secs(20), tenantry.close()).await.expect("the worker must stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follow_up_work_of_a_suspended_tenant_waits_until_it_is_active() {
    let harness = Harness::start().await.unwrap();
    let mail = Mail::new(Answer::Defers);
    let tenantry = with_mail(&harness, &mail).await;
    let work = tenantry.provision("acme").admin("ada@acme.example").await.unwrap().follow_up.unwrap();
    tenantry.suspend("acme").await.unwrap();
    mail.set(Answer::Accepts);
    let waits = async || {
        tenantry.operations().recover().await.unwrap();
        get(&tenantry, work.id).await.error.is_some_and(|e| e.contains("suspended"))
    };
    for _ in 0..500 {
        if waits().await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let state = get(&tenantry, work.id).await;
    assert!(state.error.is_some_and(|e| e.contains("the tenant is suspended")), "the work must say what it waits for");
    assert_eq!(mail.accepted(), Vec::<String>::new(), "no link is sent to a suspended tenant");
    tenantry.activate("acme").await.unwrap();
    assert_eq!(recover(&tenantry, work.id).await.status, OperationStatus::Done);
    assert_eq!(mail.accepted(), ["acme"]);
}

#[tokio::test]
async fn provisioning_without_delivery_and_without_later_steps_begins_no_follow_up_work() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let made = tenantry.provision("acme").admin("ada@acme.example").await.unwrap();
    assert!(made.follow_up.is_none());
    let kinds: Vec<String> = sqlx::query_scalar("SELECT kind FROM tenantry.operations WHERE subject LIKE 'tenant:%'")
        .fetch_all(harness.landlord())
        .await
        .unwrap();
    assert_eq!(kinds, ["provision"]);
}

/// The journal loses a call, or its answer, at every point from the begin of the follow-up work on, or the worker dies
/// there. The link is delivered, and there is one operation that delivers it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follow_up_work_is_neither_lost_nor_doubled_by_a_crash() {
    let harness = Harness::start().await.unwrap();
    let mail = Mail::new(Answer::Accepts);
    let tenantry = with_mail(&harness, &mail).await;
    let mut settings = Settings::default();
    (settings.backoff, settings.backoff_limit) = (Duration::from_millis(1), Duration::from_millis(5));
    let mut hits = 0;
    for (at, (call, lost)) in [
        ("begin_follow_up", Lost::Call),
        ("begin_follow_up", Lost::Answer),
        ("begin_follow_up", Lost::Nothing),
        ("claim", Lost::Call),
        ("claim", Lost::Nothing),
    ]
    .into_iter()
    .enumerate()
    {
        let slug = format!("acme-{at}");
        let dies = lost == Lost::Nothing;
        let journal =
            Failing::new(Arc::new(PgJournal::new(harness.landlord().clone())), Outage::of(1..2, lost).only(call));
        let engine = Engine::new(journal.clone(), vec![], settings, CancellationToken::new());
        let mut config = ProvisionConfig::default();
        config.migrations = Some(&MIGRATIONS);
        config.delivery = Some(Arc::new(mail.clone()));
        let provisioner = Provisioner::with_engine(tenantry.operation_context(), engine, config);
        let (request, options) = (Provision::new(&slug).admin("ada@acme.example"), CallOptions::new());
        let worker = tokio::spawn(async move { provisioner.provision(request, &options).await.map(drop) });
        if dies {
            journal.wait_for_delayed_call().await;
            worker.abort();
        }
        drop(worker.await);
        hits += journal.hit().len();
        sqlx::query("UPDATE tenantry.operations SET leased_until = now() WHERE finished_at IS NULL")
            .execute(harness.landlord())
            .await
            .unwrap();
        recover_all(&tenantry).await;
        assert_eq!(auditor::operations(harness.landlord(), "provision", "done").await, at as i64 + 1, "{slug}");
        assert_eq!(auditor::operations(harness.landlord(), "follow_up", "done").await, at as i64 + 1, "{slug}");
        assert_eq!(mail.accepted().iter().filter(|s| **s == slug).count(), 1, "links delivered to {slug}");
    }
    assert_eq!(hits, 5, "each outage must have been hit");
}

/// A purge stops the worker of a provisioning before it has begun its follow-up work. The worker must not begin it later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_of_a_purged_tenant_begins_no_follow_up_work() {
    let harness = Harness::start().await.unwrap();
    let mail = Mail::new(Answer::Accepts);
    let tenantry = with_mail(&harness, &mail).await;
    let outage = Outage::of(1..2, Lost::Nothing).only("begin_follow_up");
    let journal = Failing::new(Arc::new(PgJournal::new(harness.landlord().clone())), outage);
    let engine = Engine::new(journal.clone(), vec![], Settings::default(), CancellationToken::new());
    let mut config = ProvisionConfig::default();
    config.migrations = Some(&MIGRATIONS);
    config.delivery = Some(Arc::new(mail.clone()));
    let provisioner = Provisioner::with_engine(tenantry.operation_context(), engine, config);
    let (request, options) = (Provision::new("acme").admin("ada@acme.example"), CallOptions::new());
    let worker = tokio::spawn(async move { provisioner.provision(request, &options).await.map(drop) });
    journal.wait_for_delayed_call().await;
    tenantry.purge("acme").force().await.unwrap();
    journal.release();
    assert!(worker.await.unwrap().is_err(), "the provisioning of a purged tenant must fail");
    let kinds: i64 = sqlx::query_scalar("SELECT count(*) FROM tenantry.operations WHERE kind = 'follow_up'")
        .fetch_one(harness.landlord())
        .await
        .unwrap();
    assert_eq!(kinds, 0, "follow-up work of a purged tenant");
    assert_eq!(mail.accepted(), Vec::<String>::new());
}

/// Fails until the flag is set. It stands before `Note`.
struct Gate(Arc<AtomicBool>);
#[async_trait]
impl Step for Gate {
    const NAME: &'static str = "gate";
    type Output = ();
    async fn run(&self, _: &StepContext) -> Result<(), StepError> {
        if self.0.load(SeqCst) { Ok(()) } else { Err(StepError::fail("closed")) }
    }
}

/// Makes an operation of a version before follow-up work out of a provisioning and its follow-up work: the provisioning
/// has all steps itself, and has completed `done` of them. The steps before `follow_up.begin` are completed.
async fn rewrite_as_earlier_version(harness: &Harness, operation: OperationId, later_steps: u32, outputs: &str) {
    const REWRITE: &str = "WITH work AS (
            DELETE FROM tenantry.operations WHERE kind = 'follow_up'
        )
        UPDATE tenantry.operations
        SET status = 'parked', error = '550', finished_at = NULL, done = total - 1 + $2, intended = total + $2,
            total = total + 2, outputs = (outputs - 'follow_up.begin') || $3::jsonb
        WHERE id = $1";
    let mut tx = harness.landlord().begin().await.unwrap();
    sqlx::query(
        "DELETE FROM tenantry.epochs WHERE operation IN (SELECT id FROM tenantry.operations WHERE kind = 'follow_up')",
    )
    .execute(&mut *tx)
    .await
    .unwrap();
    let rewrite = sqlx::query(REWRITE).bind(operation.as_uuid()).bind(later_steps as i32).bind(outputs);
    rewrite.execute(&mut *tx).await.unwrap();
    sqlx::query("UPDATE tenantry.lanes l SET change = o.id FROM tenantry.operations o WHERE o.id = $1 AND l.subject = o.subject")
        .bind(operation.as_uuid())
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provisioning_of_an_earlier_version_that_is_parked_after_activation_ends() {
    let harness = Harness::start().await.unwrap();
    let (mail, open, runs) =
        (Mail::new(Answer::Accepts), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let configure = |b: Builder| {
        migrated(b)
            .link_delivery(mail.clone())
            .after_activation(Gate(open.clone()))
            .after_activation(Note(runs.clone()))
    };
    let tenantry = harness.tenantry(configure).await.unwrap();
    // (steps after activation that the earlier version has completed, their outputs)
    let cases = [(0, "{}"), (1, r#"{"link.deliver": {"delivered": true}}"#), (2, r#"{"gate": null}"#)];
    for (at, (completed, outputs)) in cases.into_iter().enumerate() {
        open.store(false, SeqCst);
        let slug = format!("acme-{at}");
        let made = tenantry.provision(&slug).admin("ada@acme.example").input(&"hello").await.unwrap();
        rewrite_as_earlier_version(&harness, made.operation, completed, outputs).await;
        let busy = tenantry.migrate(slug.as_str()).await.unwrap_err();
        assert!(busy.to_string().contains("operations().resume("), "the error must say what can be done: {busy}");
        assert_eq!(busy.retry_after(), None, "a parked operation does not end by itself");
        open.store(completed < 2, SeqCst);
        let resumed = tenantry.operations().resume(made.operation).await.unwrap();
        assert_eq!((resumed.status, resumed.done), (OperationStatus::Done, resumed.total), "{slug}: {resumed:?}");
        tenantry.migrate(slug.as_str()).await.unwrap();
        recover_all(&tenantry).await;
        assert_eq!(runs.load(SeqCst), at as u32 + 1, "{slug}: how often the last step ran");
    }
    let accepted = mail.accepted();
    assert_eq!(accepted, ["acme-0", "acme-1", "acme-2"], "no link is delivered a second time");
}

/// Two steps after activation, the first of which waits for the test.
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

/// The purge comes while a step of the follow-up work runs. The worker's next record is refused, so no later step runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purge_ends_follow_up_work_whose_step_is_running() {
    let harness = Harness::start().await.unwrap();
    let (started, release, runs) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
    let waits = Waits(started.clone(), release.clone());
    let configure = |b: Builder| migrated(b).after_activation(waits).after_activation(Note(runs.clone()));
    let tenantry = harness.tenantry(configure).await.unwrap();
    tenantry.provision("acme").input(&"hello").start().await.unwrap();
    started.notified().await;
    let work = tenantry.operations().open().await.unwrap().readable.remove(0);
    let journal = PgJournal::new(harness.landlord().clone());
    let epoch = journal.read(work.id).await.unwrap().unwrap().epoch;
    tenantry.purge("acme").force().await.unwrap();
    let fenced = journal.check(FencingToken { operation: work.id, epoch }).await;
    assert!(matches!(fenced, Err(StoreError::Fenced)), "the worker can still write to the stores: {fenced:?}");
    release.notify_one();
    tenantry.close().await;
    let ended = journal.read(work.id).await.unwrap().unwrap();
    assert_eq!((ended.status, runs.load(SeqCst)), (OperationStatus::Abandoned, 0));
    assert_nothing(&harness, "after a purge during follow-up work").await;
}
