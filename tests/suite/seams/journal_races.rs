//! Journal writes that race with a takeover, made deterministic: the test plays one side with a transaction that it
//! keeps open, and waits until PostgreSQL reports that the other side is blocked.
//!
//! Whichever side commits first, a worker whose operation was taken over must not write afterwards.
use crate::landlord;
use sqlx::{PgPool, PgTransaction};
use std::future::Future;
use std::time::Duration;
use tenantry::error::{BeginError, StoreError};
use tenantry::journal::{Begun, Claim, Intent, Journal, PgJournal, Progress, Record};
use tenantry::operation::{Lane, OperationId, OperationStatus, Subject};
use tenantry::{TenantId, sqlx};
use tokio::task::JoinHandle;

const LEASE: Duration = Duration::from_secs(3600);
/// What a takeover does: it raises the operation's epoch, so that tokens with the old epoch are fenced.
const TAKEOVER: &str = "UPDATE tenantry.epochs SET epoch = epoch + 1 WHERE operation = $1";

/// A landlord with its journal, and a tenant whose lanes the operations of a test occupy.
struct Fixture {
    landlord: PgPool,
    journal: PgJournal,
    subject: Subject,
}

impl Fixture {
    async fn new() -> Self {
        let landlord = landlord::installed().await;
        Self { journal: PgJournal::new(landlord.clone()), landlord, subject: Subject::Tenant(TenantId::new()) }
    }

    /// Begins an operation in this lane, with a lease of this length.
    async fn begin(&self, lane: Lane, lease: Duration) -> Record {
        let mut intent = Intent::new(OperationId::new(), "race", lane, self.subject.clone());
        (intent.intended, intent.total, intent.lease, intent.worker) = (1, 3, lease, intent.id.to_string());
        match self.journal.begin(&intent).await.unwrap() {
            Begun::New(record) => *record,
            joined => panic!("{joined:?}"),
        }
    }

    /// Runs `sql` with the operation's id as its parameter and returns the open transaction, with its locks.
    async fn open_transaction(&self, sql: &'static str, operation: OperationId) -> PgTransaction<'static> {
        let mut tx = self.landlord.begin().await.unwrap();
        sqlx::query(sql).bind(operation.as_uuid()).execute(&mut *tx).await.expect(sql);
        tx
    }

    /// Spawns the call and returns once a session of the landlord waits for a lock.
    async fn spawn_until_blocked<T: Send + 'static>(
        &self, call: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let call = tokio::spawn(call);
        landlord::somebody_waits(&self.landlord).await;
        call
    }

    /// Starts a write of the operation while a takeover is not committed yet, commits the takeover, and asserts that
    /// the write is fenced.
    async fn assert_fenced_by_takeover<T: Send + 'static>(
        &self, operation: OperationId, write: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) {
        let takeover = self.open_transaction(TAKEOVER, operation).await;
        let write = self.spawn_until_blocked(write).await;
        takeover.commit().await.unwrap();
        assert!(matches!(write.await.unwrap(), Err(StoreError::Fenced)), "a write after the takeover was not fenced");
    }

    async fn read(&self, id: OperationId) -> Record {
        self.journal.read(id).await.unwrap().unwrap()
    }
}

/// The final record of the operation, as its worker writes it.
fn end(operation: &Record) -> Progress {
    let mut end = Progress::of(operation);
    (end.status, end.done, end.durable) = (OperationStatus::Done, 3, true);
    end
}

/// A caller that finds the lane occupied reads the occupying operation, which may have ended in the meantime.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn begin_succeeds_or_is_busy_when_the_lane_is_freed_concurrently() {
    let fixture = Fixture::new().await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (journal, subject) = (fixture.journal.clone(), fixture.subject.clone());
        callers.spawn(async move {
            for _ in 0..150 {
                let mut intent = Intent::new(OperationId::new(), "race", Lane::Change, subject.clone());
                (intent.intended, intent.total, intent.lease) = (1, 3, LEASE);
                match journal.begin(&intent).await {
                    Ok(Begun::New(operation)) => {
                        drop(journal.record(operation.fencing_token(), &end(&operation)).await.unwrap())
                    }
                    other => assert!(matches!(other, Err(BeginError::Busy { .. })), "{other:?}"),
                }
            }
        });
    }
    callers.join_all().await;
}

#[tokio::test]
async fn final_record_blocked_by_a_takeover_is_fenced() {
    let fixture = Fixture::new().await;
    let operation = fixture.begin(Lane::Change, LEASE).await;
    let (journal, stale) = (fixture.journal.clone(), operation.clone());
    fixture
        .assert_fenced_by_takeover(
            operation.id,
            async move { journal.record(stale.fencing_token(), &end(&stale)).await },
        )
        .await;
    let now = fixture.read(operation.id).await;
    assert_eq!((now.status, now.done), (OperationStatus::Running, 0));
    assert_eq!(fixture.journal.events(operation.id, 0, 10).await.unwrap().readable, []);
    let mut next = Intent::new(OperationId::new(), "race", Lane::Change, fixture.subject.clone());
    next.total = 1;
    let next = fixture.journal.begin(&next).await;
    let is_busy = matches!(next, Err(BeginError::Busy { operation: by, .. }) if by == operation.id);
    assert!(is_busy, "a fenced final record freed the lane: {next:?}");
}

#[tokio::test]
async fn renewal_blocked_by_a_takeover_is_fenced() {
    let fixture = Fixture::new().await;
    let operation = fixture.begin(Lane::Change, Duration::ZERO).await;
    let (journal, writer) = (fixture.journal.clone(), operation.fencing_token());
    fixture.assert_fenced_by_takeover(operation.id, async move { journal.renew(writer, LEASE).await }).await;
    assert_eq!(fixture.read(operation.id).await.leased_until, operation.leased_until);
}

#[tokio::test]
async fn preempting_operation_that_was_taken_over_parks_nothing() {
    let fixture = Fixture::new().await;
    let change = fixture.begin(Lane::Change, LEASE).await;
    let preempt = fixture.begin(Lane::Preempt, LEASE).await;
    let (journal, subject, by) = (fixture.journal.clone(), fixture.subject.clone(), preempt.fencing_token());
    fixture.assert_fenced_by_takeover(preempt.id, async move { journal.park_change(&subject, by).await }).await;
    assert_eq!(fixture.read(change.id).await.status, OperationStatus::Running);
    fixture
        .journal
        .check(change.fencing_token())
        .await
        .expect("the worker of the change was fenced by a stale preempting operation");
}

#[tokio::test]
async fn preempting_operation_that_was_taken_over_abandons_nothing() {
    let fixture = Fixture::new().await;
    let change = fixture.begin(Lane::Change, LEASE).await;
    let preempt = fixture.begin(Lane::Preempt, LEASE).await;
    fixture.journal.park_change(&fixture.subject, preempt.fencing_token()).await.unwrap();
    let (journal, subject, by) = (fixture.journal.clone(), fixture.subject.clone(), preempt.fencing_token());
    fixture.assert_fenced_by_takeover(preempt.id, async move { journal.abandon_change(&subject, by).await }).await;
    assert_eq!(fixture.read(change.id).await.status, OperationStatus::Parked);
}

/// The lease expired while the worker's final record was in progress. The record counts, and the claimant sees it.
#[tokio::test]
async fn claim_waits_for_a_record_in_progress_and_sees_it() {
    let fixture = Fixture::new().await;
    let operation = fixture.begin(Lane::Change, Duration::ZERO).await;
    let row =
        fixture.open_transaction("SELECT 1 FROM tenantry.operations WHERE id = $1 FOR UPDATE", operation.id).await;
    let (journal, last) = (fixture.journal.clone(), operation.clone());
    let record =
        fixture.spawn_until_blocked(async move { journal.record(last.fencing_token(), &end(&last)).await }).await;
    let (journal, id) = (fixture.journal.clone(), operation.id);
    let mut claim = tokio::spawn(async move { journal.claim(id, "successor", LEASE).await });
    let early = tokio::time::timeout(Duration::from_millis(500), &mut claim).await;
    assert!(early.is_err(), "the claim did not wait for a record in progress: {early:?}");
    row.commit().await.unwrap();
    record.await.unwrap().expect("a record that began before the claim was refused");
    let claim = claim.await.unwrap().unwrap();
    assert!(matches!(claim, Claim::Over(_)), "{claim:?}");
    assert_eq!(fixture.read(operation.id).await.epoch, 1);
}

#[tokio::test]
async fn claim_blocked_by_a_faster_claim_finds_the_operation_held() {
    const FASTER: &str = "WITH epoch AS (UPDATE tenantry.epochs SET epoch = 2 WHERE operation = $1)
        UPDATE tenantry.operations SET worker = 'faster', leased_until = now() + interval '1 hour' WHERE id = $1";
    let fixture = Fixture::new().await;
    let operation = fixture.begin(Lane::Change, Duration::ZERO).await;
    let faster = fixture.open_transaction(FASTER, operation.id).await;
    let (journal, id) = (fixture.journal.clone(), operation.id);
    let claim = fixture.spawn_until_blocked(async move { journal.claim(id, "slower", LEASE).await }).await;
    faster.commit().await.unwrap();
    let claim = claim.await.unwrap().unwrap();
    assert!(matches!(&claim, Claim::Held(r) if r.worker == "faster" && r.epoch == 2), "{claim:?}");
}

/// A preempting operation parks the change while the worker of the change writes its final record.
#[tokio::test]
async fn park_change_waits_for_a_final_record_and_parks_nothing() {
    let fixture = Fixture::new().await;
    let change = fixture.begin(Lane::Change, LEASE).await;
    let preempt = fixture.begin(Lane::Preempt, LEASE).await;
    let row = fixture.open_transaction("SELECT 1 FROM tenantry.operations WHERE id = $1 FOR UPDATE", change.id).await;
    let (journal, last) = (fixture.journal.clone(), change.clone());
    let record =
        fixture.spawn_until_blocked(async move { journal.record(last.fencing_token(), &end(&last)).await }).await;
    let (journal, subject, by) = (fixture.journal.clone(), fixture.subject.clone(), preempt.fencing_token());
    let mut park = tokio::spawn(async move { journal.park_change(&subject, by).await });
    let early = tokio::time::timeout(Duration::from_millis(500), &mut park).await;
    assert!(early.is_err(), "park_change() did not wait for a record in progress: {early:?}");
    row.commit().await.unwrap();
    record.await.unwrap().expect("a record that began before park_change() was refused");
    park.await.unwrap().unwrap();
    assert_eq!(fixture.read(change.id).await.status, OperationStatus::Done);
}

/// `claim` and `record` must lock in the same order. Otherwise they deadlock.
#[tokio::test]
async fn claim_locks_the_epoch_before_the_operation() {
    let fixture = Fixture::new().await;
    let operation = fixture.begin(Lane::Change, Duration::ZERO).await;
    let mut recording =
        fixture.open_transaction("SELECT 1 FROM tenantry.epochs WHERE operation = $1 FOR SHARE", operation.id).await;
    let (journal, id) = (fixture.journal.clone(), operation.id);
    let claim = fixture.spawn_until_blocked(async move { journal.claim(id, "successor", LEASE).await }).await;
    let lock = sqlx::query("SELECT 1 FROM tenantry.operations FOR UPDATE NOWAIT").execute(&mut *recording).await;
    lock.expect("claim() locked the operation before its epoch");
    recording.commit().await.unwrap();
    let claim = claim.await.unwrap().unwrap();
    assert!(matches!(&claim, Claim::Taken(r) if r.epoch == 2), "{claim:?}");
}
