//! The journal while a takeover is under way: a transaction of the test's own holds one side in the middle.
use crate::landlord;
use sqlx::{PgPool, PgTransaction};
use std::future::Future;
use std::time::Duration;
use tenantry::error::StoreError;
use tenantry::journal::{Begun, Claim, Intent, Journal, PgJournal, Progress, Record};
use tenantry::operation::{Lane, OperationId, OperationStatus, Subject};
use tenantry::{TenantId, sqlx};
use tokio::task::JoinHandle;

const LEASE: Duration = Duration::from_secs(3600);
const TAKEOVER: &str = "UPDATE tenantry.epochs SET epoch = epoch + 1 WHERE operation = $1";

struct Bench {
    landlord: PgPool,
    journal: PgJournal,
    subject: Subject,
}

impl Bench {
    async fn new() -> Self {
        let landlord = landlord::installed().await;
        Self { journal: PgJournal::new(landlord.clone()), landlord, subject: Subject::Tenant(TenantId::new()) }
    }

    async fn begun(&self, lane: Lane, lease: Duration) -> Record {
        let mut intent = Intent::new(OperationId::new(), "race", lane, self.subject.clone());
        (intent.intended, intent.total, intent.lease, intent.worker) = (1, 3, lease, intent.id.to_string());
        match self.journal.begin(&intent).await.unwrap() {
            Begun::New(record) => *record,
            other => panic!("{other:?}"),
        }
    }

    /// A transaction that has done `sql` with the operation's id and stays open.
    async fn held(&self, sql: &'static str, operation: OperationId) -> PgTransaction<'static> {
        let mut tx = self.landlord.begin().await.unwrap();
        sqlx::query(sql).bind(operation.as_uuid()).execute(&mut *tx).await.expect(sql);
        tx
    }

    /// Starts it, and returns when a session of the landlord waits for a lock.
    async fn waits<T: Send + 'static>(&self, call: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let call = tokio::spawn(call);
        landlord::somebody_waits(&self.landlord).await;
        call
    }

    /// What a write of `operation` answers that began before a takeover's commit and waits for it.
    async fn taken_over<T: Send + 'static>(
        &self, operation: OperationId, write: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) {
        let takeover = self.held(TAKEOVER, operation).await;
        let write = self.waits(write).await;
        takeover.commit().await.unwrap();
        assert!(matches!(write.await.unwrap(), Err(StoreError::Fenced)));
    }

    async fn read(&self, id: OperationId) -> Record {
        self.journal.read(id).await.unwrap().unwrap()
    }
}

/// The end of its operation, as a worker writes it.
fn end(held: &Record) -> Progress {
    let mut end = Progress::of(held);
    (end.status, end.done, end.durable) = (OperationStatus::Done, 3, true);
    end
}

/// Whoever finds the lane taken asks by whom, and that operation may have ended in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_is_freed_at_that_moment_fails_no_begin() {
    let bench = Bench::new().await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (journal, subject) = (bench.journal.clone(), bench.subject.clone());
        callers.spawn(async move {
            for _ in 0..150 {
                let mut intent = Intent::new(OperationId::new(), "race", Lane::Change, subject.clone());
                (intent.intended, intent.total, intent.lease) = (1, 3, LEASE);
                match journal.begin(&intent).await.unwrap() {
                    Begun::New(held) => drop(journal.record(held.fencing_token(), &end(&held)).await.unwrap()),
                    other => assert!(matches!(other, Begun::Busy(_)), "{other:?}"),
                }
            }
        });
    }
    callers.join_all().await;
}

#[tokio::test]
async fn an_end_that_waits_for_a_takeover_is_not_written() {
    let bench = Bench::new().await;
    let held = bench.begun(Lane::Change, LEASE).await;
    let (journal, stale) = (bench.journal.clone(), held.clone());
    bench.taken_over(held.id, async move { journal.record(stale.fencing_token(), &end(&stale)).await }).await;
    let now = bench.read(held.id).await;
    assert_eq!((now.status, now.done), (OperationStatus::Running, 0));
    assert_eq!(bench.journal.events(held.id, 0, 10).await.unwrap(), []);
    let mut next = Intent::new(OperationId::new(), "race", Lane::Change, bench.subject.clone());
    next.total = 1;
    let next = bench.journal.begin(&next).await.unwrap();
    assert!(matches!(next, Begun::Busy(id) if id == held.id), "and its lane is not freed: {next:?}");
}

#[tokio::test]
async fn a_renewal_that_waits_for_a_takeover_holds_nothing() {
    let bench = Bench::new().await;
    let held = bench.begun(Lane::Change, Duration::ZERO).await;
    let (journal, writer) = (bench.journal.clone(), held.fencing_token());
    bench.taken_over(held.id, async move { journal.renew(writer, LEASE).await }).await;
    assert_eq!(bench.read(held.id).await.leased_until, held.leased_until);
}

#[tokio::test]
async fn a_stale_fence_parks_nothing() {
    let bench = Bench::new().await;
    let change = bench.begun(Lane::Change, LEASE).await;
    let fence = bench.begun(Lane::Preempt, LEASE).await;
    let (journal, subject, by) = (bench.journal.clone(), bench.subject.clone(), fence.fencing_token());
    bench.taken_over(fence.id, async move { journal.park_change(&subject, by).await }).await;
    assert_eq!(bench.read(change.id).await.status, OperationStatus::Running);
    bench.journal.check(change.fencing_token()).await.expect("its worker goes on");
}

#[tokio::test]
async fn a_stale_fence_abandons_nothing() {
    let bench = Bench::new().await;
    let change = bench.begun(Lane::Change, LEASE).await;
    let fence = bench.begun(Lane::Preempt, LEASE).await;
    bench.journal.park_change(&bench.subject, fence.fencing_token()).await.unwrap();
    let (journal, subject, by) = (bench.journal.clone(), bench.subject.clone(), fence.fencing_token());
    bench.taken_over(fence.id, async move { journal.abandon_change(&subject, by).await }).await;
    assert_eq!(bench.read(change.id).await.status, OperationStatus::Parked);
}

/// A lease that ran out while its worker's last word was on the way: what it wrote counts, and the successor sees it.
#[tokio::test]
async fn a_claim_waits_for_progress_that_has_begun_and_sees_it() {
    let bench = Bench::new().await;
    let held = bench.begun(Lane::Change, Duration::ZERO).await;
    let row = bench.held("SELECT 1 FROM tenantry.operations WHERE id = $1 FOR UPDATE", held.id).await;
    let (journal, last) = (bench.journal.clone(), held.clone());
    let word = bench.waits(async move { journal.record(last.fencing_token(), &end(&last)).await }).await;
    let (journal, id) = (bench.journal.clone(), held.id);
    let mut claim = tokio::spawn(async move { journal.claim(id, "successor", LEASE).await });
    let early = tokio::time::timeout(Duration::from_millis(500), &mut claim).await;
    assert!(early.is_err(), "the claim passed progress that was still to land: {early:?}");
    row.commit().await.unwrap();
    word.await.unwrap().expect("it began before the claim");
    let claim = claim.await.unwrap().unwrap();
    assert!(matches!(claim, Claim::Over(_)), "{claim:?}");
    assert_eq!(bench.read(held.id).await.epoch, 1);
}

#[tokio::test]
async fn a_claim_that_waits_for_a_faster_one_gets_nothing() {
    const FASTER: &str = "WITH epoch AS (UPDATE tenantry.epochs SET epoch = 2 WHERE operation = $1)
        UPDATE tenantry.operations SET worker = 'faster', leased_until = now() + interval '1 hour' WHERE id = $1";
    let bench = Bench::new().await;
    let held = bench.begun(Lane::Change, Duration::ZERO).await;
    let faster = bench.held(FASTER, held.id).await;
    let (journal, id) = (bench.journal.clone(), held.id);
    let claim = bench.waits(async move { journal.claim(id, "slower", LEASE).await }).await;
    faster.commit().await.unwrap();
    let claim = claim.await.unwrap().unwrap();
    assert!(matches!(&claim, Claim::Held(r) if r.worker == "faster" && r.epoch == 2), "{claim:?}");
}

/// A fence that stops the operation at the moment at which its worker ends it.
#[tokio::test]
async fn what_ends_at_the_moment_of_a_fence_is_not_parked() {
    let bench = Bench::new().await;
    let change = bench.begun(Lane::Change, LEASE).await;
    let fence = bench.begun(Lane::Preempt, LEASE).await;
    let row = bench.held("SELECT 1 FROM tenantry.operations WHERE id = $1 FOR UPDATE", change.id).await;
    let (journal, last) = (bench.journal.clone(), change.clone());
    let word = bench.waits(async move { journal.record(last.fencing_token(), &end(&last)).await }).await;
    let (journal, subject, by) = (bench.journal.clone(), bench.subject.clone(), fence.fencing_token());
    let mut park = tokio::spawn(async move { journal.park_change(&subject, by).await });
    let early = tokio::time::timeout(Duration::from_millis(500), &mut park).await;
    assert!(early.is_err(), "the fence passed a write that was still to land: {early:?}");
    row.commit().await.unwrap();
    word.await.unwrap().expect("it began before the fence");
    park.await.unwrap().unwrap();
    assert_eq!(bench.read(change.id).await.status, OperationStatus::Done);
}

/// In one order with `record`: else the two wait for each other.
#[tokio::test]
async fn a_claim_locks_the_epoch_before_the_operation() {
    let bench = Bench::new().await;
    let held = bench.begun(Lane::Change, Duration::ZERO).await;
    let mut word = bench.held("SELECT 1 FROM tenantry.epochs WHERE operation = $1 FOR SHARE", held.id).await;
    let (journal, id) = (bench.journal.clone(), held.id);
    let claim = bench.waits(async move { journal.claim(id, "successor", LEASE).await }).await;
    let lock = sqlx::query("SELECT 1 FROM tenantry.operations FOR UPDATE NOWAIT").execute(&mut *word).await;
    lock.expect("nobody has locked the operation yet");
    word.commit().await.unwrap();
    let claim = claim.await.unwrap().unwrap();
    assert!(matches!(&claim, Claim::Taken(r) if r.epoch == 2), "{claim:?}");
}
