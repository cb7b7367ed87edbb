//! [`Journal`].
use super::answer::{conflict, done, fenced, some};
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
    let begun = done(journal.begin(intent).await, "an intent begins");
    let Begun::New(record) = begun else { return some(None, "a free lane takes a new operation") };
    assert_eq!(
        (record.id, record.epoch, record.intended),
        (intent.id, 1, 1),
        "promised: the caller holds it at epoch 1"
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
        let answer = done(answer, "a known key");
        assert!(matches!(&answer, Begun::Joined(r) if r.id == first.id), "promised: it is joined; {answer:?}");
    }
    let other = Intent { request: serde_json::json!(1), ..again.clone() };
    let answer = done(journal.begin(&other).await, "a known key");
    assert!(
        matches!(answer, Begun::KeyReused(id) if id == first.id),
        "promised: another request is refused; {answer:?}"
    );
    done(journal.record(record.fencing_token(), &step(OperationStatus::Undone, 0, None)).await, "an end");
    let answer = done(journal.begin(&other).await, "the key of what was undone");
    assert!(matches!(answer, Begun::New(_)), "promised: it starts again; {answer:?}");
}

async fn lanes(journal: &impl Journal) {
    let subject = tenant();
    let change = begin(journal, &intent(&subject, Lane::Change, LONG)).await;
    let busy = done(journal.begin(&intent(&subject, Lane::Change, LONG)).await, "a taken lane");
    assert!(matches!(busy, Begun::Busy(id) if id == change.id), "promised: one change at a time; {busy:?}");
    let fence = begin(journal, &intent(&subject, Lane::Preempt, LONG)).await;
    let busy = done(journal.begin(&intent(&subject, Lane::Preempt, LONG)).await, "a taken lane");
    assert!(matches!(busy, Begun::Busy(id) if id == fence.id), "promised: one fence at a time; {busy:?}");
    done(journal.record(change.fencing_token(), &step(OperationStatus::Done, 3, None)).await, "an end");
    let busy = done(journal.begin(&intent(&subject, Lane::Change, LONG)).await, "a lane behind a fence");
    assert!(matches!(busy, Begun::Busy(id) if id == fence.id), "promised: no change begins behind a fence; {busy:?}");
    done(journal.record(fence.fencing_token(), &step(OperationStatus::Done, 3, None)).await, "an end");
    begin(journal, &intent(&subject, Lane::Change, LONG)).await;
    let history = done(journal.history(&subject).await, "its history");
    assert_eq!(history.len(), 3, "promised: ended operations stay");
}

async fn leases(journal: &impl Journal) {
    let held = begin(journal, &intent(&tenant(), Lane::Change, LONG)).await;
    let stranger = OperationId::new().to_string();
    let answer = done(journal.claim(held.id, &stranger, LONG).await, "a claim");
    assert!(matches!(answer, Claim::Held(_)), "promised: a lease is respected; {answer:?}");
    let Claim::Taken(again) = done(journal.claim(held.id, &held.worker, LONG).await, "its own claim") else {
        return some(None, "a worker is its own successor");
    };
    assert_eq!(again.epoch, 2, "promised: each hold has an epoch of its own");
    fenced(journal.check(held.fencing_token()).await, "an epoch that is over");
    fenced(journal.renew(held.fencing_token(), LONG).await, "its renewal");
    fenced(journal.record(held.fencing_token(), &step(OperationStatus::Running, 1, None)).await.map(drop), "its write");
    done(journal.check(again.fencing_token()).await, "the newest epoch holds");

    let dead = begin(journal, &intent(&tenant(), Lane::Change, Duration::ZERO)).await;
    assert!(done(journal.due(1000).await, "what is due").contains(&dead.id), "promised: a dead worker's is due");
    let Claim::Taken(taken) = done(journal.claim(dead.id, &stranger, LONG).await, "a takeover") else {
        return some(None, "a lease that is over is taken over");
    };
    assert_eq!((taken.epoch, taken.worker.as_str()), (2, stranger.as_str()), "promised: the new worker holds it");
    assert!(!done(journal.due(1000).await, "what is due").contains(&dead.id), "promised: and it is due no more");
    let mine = Intent { recoverable: false, ..intent(&tenant(), Lane::Change, Duration::ZERO) };
    begin(journal, &mine).await;
    assert!(!done(journal.due(1000).await, "what is due").contains(&mine.id), "promised: not without its caller");
}

async fn progress(journal: &impl Journal) {
    let held = begin(journal, &intent(&tenant(), Lane::Change, LONG)).await;
    for n in 1..=2 {
        let durable = n == 1;
        let told = Progress { durable, ..step(OperationStatus::Running, n, Some(LONG)) };
        let event = done(journal.record(held.fencing_token(), &told).await, "progress");
        assert_eq!((event.seq, event.done, event.total), (i64::from(n), n, 3), "promised: events count without a gap");
    }
    let waits =
        Progress { error: Some("why".into()), retry_after: Some(LONG), ..step(OperationStatus::Running, 2, None) };
    done(journal.record(held.fencing_token(), &waits).await, "a failure that waits");
    let read = some(done(journal.read(held.id).await, "reading"), "it is there");
    assert_eq!(
        (read.done, read.intended, read.error.as_deref()),
        (2, 3, Some("why")),
        "promised: all of it is written"
    );
    assert_eq!(read.outputs.get("step-1"), Some(&serde_json::json!({ "n": 1 })), "promised: answers are kept by name");
    assert!(!done(journal.due(1000).await, "what is due").contains(&held.id), "promised: it waits for its time");
    let answer = done(journal.claim(held.id, "a stranger", LONG).await, "a claim");
    assert!(matches!(answer, Claim::Held(_)), "promised: before that nobody takes it; {answer:?}");
    let later = done(journal.events(held.id, 1, 10).await, "its events");
    assert_eq!(later.iter().map(|e| e.seq).collect::<Vec<_>>(), [2, 3], "promised: a stream resumes by number");
    done(journal.record(held.fencing_token(), &step(OperationStatus::Done, 3, None)).await, "an end");
    let over = journal.record(held.fencing_token(), &step(OperationStatus::Running, 1, None)).await;
    fenced(over.map(drop), "a write after the end");
    let answer = done(journal.claim(held.id, &held.worker, LONG).await, "a claim");
    assert!(matches!(answer, Claim::Over(_)), "promised: an end is an end; {answer:?}");
    assert!(!done(journal.open().await, "what is open").iter().any(|r| r.id == held.id), "promised: it is not open");
}

async fn parking(journal: &impl Journal) {
    let subject = tenant();
    let change = begin(journal, &intent(&subject, Lane::Change, LONG)).await;
    let fence = begin(journal, &intent(&subject, Lane::Preempt, LONG)).await;
    let stale = FencingToken { epoch: 7, ..fence.fencing_token() };
    fenced(journal.park_change(&subject, stale).await.map(drop), "parking under another epoch");
    for _ in 0..2 {
        let parked =
            some(done(journal.park_change(&subject, fence.fencing_token()).await, "parking"), "what was parked");
        assert_eq!((parked.id, parked.status), (change.id, OperationStatus::Parked), "promised: the change is parked");
    }
    fenced(
        journal.record(change.fencing_token(), &step(OperationStatus::Done, 3, None)).await.map(drop),
        "its old worker",
    );
    fenced(journal.check(change.fencing_token()).await, "what its old worker asks before it acts");
    let answer = done(journal.claim(change.id, &change.worker, LONG).await, "a claim");
    assert!(matches!(answer, Claim::Held(_)), "promised: a parked one is nobody's; {answer:?}");
    conflict(journal.unpark(fence.id, false).await.map(drop), "unparking what is not parked");
    let running = done(journal.unpark(change.id, true).await, "unparking");
    assert_eq!(running.status, OperationStatus::Undoing, "promised: backward, if that was asked for");
    assert!(done(journal.due(1000).await, "what is due").contains(&change.id), "promised: and any node may go on");
    done(journal.park_change(&subject, fence.fencing_token()).await, "parking again");
    done(journal.abandon_change(&subject, fence.fencing_token()).await, "abandoning");
    let ended = some(done(journal.read(change.id).await, "reading"), "it is there");
    assert_eq!(ended.status, OperationStatus::Undone, "promised: what is abandoned has ended");
    done(journal.record(fence.fencing_token(), &step(OperationStatus::Done, 3, None)).await, "an end");
    begin(journal, &intent(&subject, Lane::Change, LONG)).await;
}
