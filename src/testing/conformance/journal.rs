//! [`Journal`].
use super::assertions::{expect_conflict, expect_ok, expect_fenced, expect_some};
use crate::operation::{FencingToken, Lane, OperationId, OperationStatus, Subject};
use crate::store::journal::{Begun, Claim, Intent, Journal, Progress, Record};
use crate::tenant::TenantId;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(3600);

/// Intents, keys, lanes, leases and epochs, progress, parking, recovery, history.
///
/// # Panics
/// When a promise of [`Journal`] is broken.
pub async fn journal(journal: impl Journal) {
    keys(&journal).await;
    lanes(&journal).await;
    leases(&journal).await;
    progress(&journal).await;
    parking(&journal).await;
}

fn intent(subject: &Subject, lane: Lane, lease: Duration) -> Intent {
    let worker = OperationId::new().to_string();
    Intent {
        total: 3,
        intended: 1,
        worker,
        lease,
        ..Intent::new(OperationId::new(), "conformance", lane, subject.clone())
    }
}

fn tenant() -> Subject {
    Subject::Tenant(TenantId::new())
}

async fn begin(journal: &impl Journal, intent: &Intent) -> Record {
    let begun = expect_ok(journal.begin(intent).await, "an intent begins");
    let Begun::New(record) = begun else { return expect_some(None, "a free lane takes a new operation") };
    assert_eq!(
        (record.id, record.epoch, record.intended),
        (intent.id, 1, 1),
        "expected: the caller holds it at epoch 1"
    );
    *record
}

fn step(status: OperationStatus, done: u32, lease: Option<Duration>) -> Progress {
    let (error, output) = (None, Some(serde_json::json!({ "n": done })));
    let step = format!("step-{done}").into();
    Progress { status, step, intended: done + 1, done, output, error, retry_after: None, lease, durable: true }
}

async fn keys(journal: &impl Journal) {
    let key = Some(OperationId::new().to_string());
    let first = Intent { key, ..intent(&tenant(), Lane::Change, LONG) };
    let record = begin(journal, &first).await;
    let again = Intent { id: OperationId::new(), subject: tenant(), ..first.clone() };
    for answer in
        [journal.begin(&again).await, journal.joined(&again).await.map(|b| b.unwrap_or(Begun::Busy(again.id)))]
    {
        let answer = expect_ok(answer, "a known key");
        assert!(matches!(&answer, Begun::Joined(r) if r.id == first.id), "expected: it is joined; {answer:?}");
    }
    let other = Intent { request: serde_json::json!(1), ..again.clone() };
    let answer = expect_ok(journal.begin(&other).await, "a known key");
    assert!(
        matches!(answer, Begun::KeyReused(id) if id == first.id),
        "expected: another request is refused; {answer:?}"
    );
    expect_ok(journal.record(record.fencing_token(), &step(OperationStatus::Undone, 0, None)).await, "an end");
    let answer = expect_ok(journal.begin(&other).await, "the key of what was undone");
    assert!(matches!(answer, Begun::New(_)), "expected: it starts again; {answer:?}");
}

async fn lanes(journal: &impl Journal) {
    let subject = tenant();
    let change = begin(journal, &intent(&subject, Lane::Change, LONG)).await;
    let busy = expect_ok(journal.begin(&intent(&subject, Lane::Change, LONG)).await, "a taken lane");
    assert!(matches!(busy, Begun::Busy(id) if id == change.id), "expected: one change at a time; {busy:?}");
    let fence = begin(journal, &intent(&subject, Lane::Preempt, LONG)).await;
    let busy = expect_ok(journal.begin(&intent(&subject, Lane::Preempt, LONG)).await, "a taken lane");
    assert!(matches!(busy, Begun::Busy(id) if id == fence.id), "expected: one fence at a time; {busy:?}");
    expect_ok(journal.record(change.fencing_token(), &step(OperationStatus::Done, 3, None)).await, "an end");
    let busy = expect_ok(journal.begin(&intent(&subject, Lane::Change, LONG)).await, "a lane behind a fence");
    assert!(matches!(busy, Begun::Busy(id) if id == fence.id), "expected: no change begins behind a fence; {busy:?}");
    expect_ok(journal.record(fence.fencing_token(), &step(OperationStatus::Done, 3, None)).await, "an end");
    begin(journal, &intent(&subject, Lane::Change, LONG)).await;
    let history = expect_ok(journal.history(&subject).await, "its history");
    assert_eq!(history.len(), 3, "expected: ended operations stay");
}

async fn leases(journal: &impl Journal) {
    let held = begin(journal, &intent(&tenant(), Lane::Change, LONG)).await;
    let stranger = OperationId::new().to_string();
    let answer = expect_ok(journal.claim(held.id, &stranger, LONG).await, "a claim");
    assert!(matches!(answer, Claim::Held(_)), "expected: a lease is respected; {answer:?}");
    let Claim::Taken(again) = expect_ok(journal.claim(held.id, &held.worker, LONG).await, "its own claim") else {
        return expect_some(None, "a worker is its own successor");
    };
    assert_eq!(again.epoch, 2, "expected: each hold has an epoch of its own");
    expect_fenced(journal.check(held.fencing_token()).await, "an epoch that is over");
    expect_fenced(journal.renew(held.fencing_token(), LONG).await, "its renewal");
    expect_fenced(journal.record(held.fencing_token(), &step(OperationStatus::Running, 1, None)).await.map(drop), "its write");
    expect_ok(journal.check(again.fencing_token()).await, "the newest epoch holds");

    let dead = begin(journal, &intent(&tenant(), Lane::Change, Duration::ZERO)).await;
    assert!(expect_ok(journal.due(1000).await, "what is due").contains(&dead.id), "expected: a dead worker's is due");
    let Claim::Taken(taken) = expect_ok(journal.claim(dead.id, &stranger, LONG).await, "a takeover") else {
        return expect_some(None, "a lease that is over is taken over");
    };
    assert_eq!((taken.epoch, taken.worker.as_str()), (2, stranger.as_str()), "expected: the new worker holds it");
    assert!(!expect_ok(journal.due(1000).await, "what is due").contains(&dead.id), "expected: and it is due no more");
    let mine = Intent { recoverable: false, ..intent(&tenant(), Lane::Change, Duration::ZERO) };
    begin(journal, &mine).await;
    assert!(!expect_ok(journal.due(1000).await, "what is due").contains(&mine.id), "expected: not without its caller");
}

async fn progress(journal: &impl Journal) {
    let held = begin(journal, &intent(&tenant(), Lane::Change, LONG)).await;
    for n in 1..=2 {
        let durable = n == 1;
        let told = Progress { durable, ..step(OperationStatus::Running, n, Some(LONG)) };
        let event = expect_ok(journal.record(held.fencing_token(), &told).await, "progress");
        assert_eq!((event.seq, event.done, event.total), (i64::from(n), n, 3), "expected: events count without a gap");
    }
    let waits =
        Progress { error: Some("why".into()), retry_after: Some(LONG), ..step(OperationStatus::Running, 2, None) };
    expect_ok(journal.record(held.fencing_token(), &waits).await, "a failure that waits");
    let read = expect_some(expect_ok(journal.read(held.id).await, "reading"), "it is there");
    assert_eq!(
        (read.done, read.intended, read.error.as_deref()),
        (2, 3, Some("why")),
        "expected: all of it is written"
    );
    assert_eq!(read.outputs.get("step-1"), Some(&serde_json::json!({ "n": 1 })), "expected: answers are kept by name");
    assert!(!expect_ok(journal.due(1000).await, "what is due").contains(&held.id), "expected: it waits for its time");
    let answer = expect_ok(journal.claim(held.id, "a stranger", LONG).await, "a claim");
    assert!(matches!(answer, Claim::Held(_)), "expected: before that nobody takes it; {answer:?}");
    let later = expect_ok(journal.events(held.id, 1, 10).await, "its events");
    assert_eq!(later.iter().map(|e| e.seq).collect::<Vec<_>>(), [2, 3], "expected: a stream resumes by number");
    expect_ok(journal.record(held.fencing_token(), &step(OperationStatus::Done, 3, None)).await, "an end");
    let over = journal.record(held.fencing_token(), &step(OperationStatus::Running, 1, None)).await;
    expect_fenced(over.map(drop), "a write after the end");
    let answer = expect_ok(journal.claim(held.id, &held.worker, LONG).await, "a claim");
    assert!(matches!(answer, Claim::Over(_)), "expected: an end is an end; {answer:?}");
    assert!(!expect_ok(journal.open().await, "what is open").iter().any(|r| r.id == held.id), "expected: it is not open");
}

async fn parking(journal: &impl Journal) {
    let subject = tenant();
    let change = begin(journal, &intent(&subject, Lane::Change, LONG)).await;
    let fence = begin(journal, &intent(&subject, Lane::Preempt, LONG)).await;
    let stale = FencingToken { epoch: 7, ..fence.fencing_token() };
    expect_fenced(journal.park_change(&subject, stale).await.map(drop), "parking under another epoch");
    for _ in 0..2 {
        let parked =
            expect_some(expect_ok(journal.park_change(&subject, fence.fencing_token()).await, "parking"), "what was parked");
        assert_eq!((parked.id, parked.status), (change.id, OperationStatus::Parked), "expected: the change is parked");
    }
    expect_fenced(
        journal.record(change.fencing_token(), &step(OperationStatus::Done, 3, None)).await.map(drop),
        "its old worker",
    );
    expect_fenced(journal.check(change.fencing_token()).await, "what its old worker asks before it acts");
    let answer = expect_ok(journal.claim(change.id, &change.worker, LONG).await, "a claim");
    assert!(matches!(answer, Claim::Held(_)), "expected: a parked one is nobody's; {answer:?}");
    expect_conflict(journal.unpark(fence.id, false).await.map(drop), "unparking what is not parked");
    let running = expect_ok(journal.unpark(change.id, true).await, "unparking");
    assert_eq!(running.status, OperationStatus::Undoing, "expected: backward, if that was asked for");
    assert!(expect_ok(journal.due(1000).await, "what is due").contains(&change.id), "expected: and any node may go on");
    expect_ok(journal.park_change(&subject, fence.fencing_token()).await, "parking again");
    expect_ok(journal.abandon_change(&subject, fence.fencing_token()).await, "abandoning");
    let ended = expect_some(expect_ok(journal.read(change.id).await, "reading"), "it is there");
    assert_eq!(ended.status, OperationStatus::Undone, "expected: what is abandoned has ended");
    expect_ok(journal.record(fence.fencing_token(), &step(OperationStatus::Done, 3, None)).await, "an end");
    begin(journal, &intent(&subject, Lane::Change, LONG)).await;
}
