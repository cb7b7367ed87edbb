//! The conformance suite of [`Journal`]: keys, lanes, leases and epochs, progress, retries, parking, recovery, history.
use super::assertions::{expect_conflict, expect_fenced, expect_ok, expect_some};
use crate::error::BeginError;
use crate::operation::{FencingToken, Lane, OperationId, OperationStatus, Subject};
use crate::store::journal::{Begun, Claim, Intent, Journal, Progress, Record};
use crate::tenant::TenantId;
use std::time::Duration;
use time::OffsetDateTime;

const LONG: Duration = Duration::from_secs(3600);

/// Checks a [`Journal`]. The suite lists due operations with a limit of 1000, so the journal must not contain many.
///
/// # Panics
/// If the implementation breaks the contract of [`Journal`]. The message names the rule.
pub async fn journal(journal: impl Journal) {
    check_keys(&journal).await;
    check_lanes(&journal).await;
    check_leases(&journal).await;
    check_progress(&journal).await;
    check_parking(&journal).await;
    check_abandoning(&journal).await;
    check_skipping(&journal).await;
    check_follow_up(&journal).await;
}

fn intent(subject: &Subject, lane: Lane, lease: Duration) -> Intent {
    let worker = format!("{}/1", OperationId::new());
    Intent {
        total: 3,
        intended: 1,
        worker,
        lease,
        ..Intent::new(OperationId::new(), "conformance", lane, subject.clone())
    }
}

fn new_subject() -> Subject {
    Subject::Tenant(TenantId::new())
}

async fn begin(journal: &impl Journal, intent: &Intent) -> Record {
    let begun = expect_ok(journal.begin(intent).await, "begin() commits an intent");
    let Begun::New(record) = begun else { return expect_some(None, "begin() returns New while the lane is free") };
    assert_eq!(
        (record.id, record.epoch, record.intended),
        (intent.id, 1, 1),
        "expected: begin() gives the operation to the intent's worker at epoch 1"
    );
    *record
}

fn progress(status: OperationStatus, done: u32, lease: Option<Duration>) -> Progress {
    let (error, output) = (None, Some(serde_json::json!({ "n": done })));
    let step = format!("step-{done}").into();
    Progress { status, step, intended: done + 1, done, output, error, retry_after: None, lease, durable: true }
}

async fn is_due(journal: &impl Journal, id: OperationId) -> bool {
    expect_ok(journal.due(1000).await, "due() lists operations").contains(&id)
}

async fn check_keys(journal: &impl Journal) {
    let key = Some(OperationId::new().to_string());
    let request = serde_json::json!({ "large": 1e16, "one": 1 });
    let first = Intent { key, request, ..intent(&new_subject(), Lane::Change, LONG) };
    let record = begin(journal, &first).await;
    let again = Intent { id: OperationId::new(), subject: new_subject(), ..first.clone() };
    let answer = expect_ok(journal.begin(&again).await, "begin() looks up a known key");
    let is_joined = matches!(&answer, Begun::Joined(r) if r.id == first.id);
    assert!(is_joined, "expected: a known key with an equal request is Joined; got: {answer:?}");
    let request = serde_json::json!({ "one": 1.0, "large": 10_000_000_000_000_000_u64 });
    let rewritten = Intent { request, ..again.clone() };
    let answer = expect_ok(journal.begin(&rewritten).await, "begin() compares requests as JSON");
    let is_joined = matches!(&answer, Begun::Joined(r) if r.id == first.id);
    assert!(is_joined, "expected: the notation of a number in a request does not matter; got: {answer:?}");
    let found = expect_ok(journal.find_joined(&again).await, "find_joined() looks up a known key");
    assert_eq!(found.map(|r| r.id), Some(first.id), "expected: find_joined() finds the operation with the key");
    let unknown = Intent { key: Some(OperationId::new().to_string()), ..again.clone() };
    let found = expect_ok(journal.find_joined(&unknown).await, "find_joined() looks up an unknown key");
    assert!(found.is_none(), "expected: find_joined() finds nothing for an unknown key; got: {found:?}");
    let other = Intent { request: serde_json::json!(1), ..again.clone() };
    for answer in [journal.begin(&other).await.err(), journal.find_joined(&other).await.err()] {
        let is_reused = matches!(answer, Some(BeginError::KeyReused { operation }) if operation == first.id);
        assert!(is_reused, "expected: a known key with a different request is KeyReused; got: {answer:?}");
    }
    let undone = journal.record(record.fencing_token(), &progress(OperationStatus::Undone, 0, None)).await;
    expect_ok(undone, "record() ends an operation as Undone");
    let answer = expect_ok(journal.begin(&other).await, "begin() accepts the key of an undone operation");
    assert!(matches!(answer, Begun::New(_)), "expected: the key of an undone operation can be used again; {answer:?}");
}

/// Asserts that this intent finds its lane occupied by `holder`.
async fn expect_busy(journal: &impl Journal, intent: &Intent, holder: &Record, rule: &str) {
    let answer = journal.begin(intent).await;
    let is_busy = matches!(answer, Err(BeginError::Busy { operation, .. }) if operation == holder.id);
    assert!(is_busy, "expected: {rule}; got: {answer:?}");
}

async fn check_lanes(journal: &impl Journal) {
    let subject = new_subject();
    let change = begin(journal, &intent(&subject, Lane::Change, LONG)).await;
    expect_busy(journal, &intent(&subject, Lane::Change, LONG), &change, "one open Change at a time").await;
    let preempting = begin(journal, &intent(&subject, Lane::Preempt, LONG)).await;
    let rule = "one open Preempt operation at a time";
    expect_busy(journal, &intent(&subject, Lane::Preempt, LONG), &preempting, rule).await;
    let done = journal.record(change.fencing_token(), &progress(OperationStatus::Done, 3, None)).await;
    expect_ok(done, "record() ends a Change");
    let rule = "no Change begins while a Preempt operation is open";
    expect_busy(journal, &intent(&subject, Lane::Change, LONG), &preempting, rule).await;
    let done = journal.record(preempting.fencing_token(), &progress(OperationStatus::Done, 3, None)).await;
    expect_ok(done, "record() ends a Preempt operation");
    begin(journal, &intent(&subject, Lane::Change, LONG)).await;
    let history = expect_ok(journal.history(&subject).await, "history() lists the operations of a subject");
    assert_eq!(history.len(), 3, "expected: history() contains ended operations too");
    check_active_since(journal, &subject).await;
}

/// The subject has one open operation and two that have ended.
async fn check_active_since(journal: &impl Journal, subject: &Subject) {
    let began = OffsetDateTime::UNIX_EPOCH;
    let rule = "active_since() lists the open operations of a subject and those that ended since";
    let all = expect_ok(journal.active_since(subject, began, 10).await, rule);
    assert_eq!(all.len(), 3, "expected: active_since() contains operations that ended since that time");
    let newest = expect_ok(journal.active_since(subject, began, 1).await, rule);
    assert_eq!(newest[0].status, OperationStatus::Running, "expected: active_since() lists the newest one first");
    let later = expect_ok(journal.now().await, "now() reads the clock") + LONG;
    let open = expect_ok(journal.active_since(subject, later, 10).await, rule);
    assert_eq!(open.len(), 1, "expected: active_since() leaves out what ended before; an open operation counts");
    let id = open[0].id;
    expect_ok(journal.annotate(id, "why").await, "annotate() appends an event to an open operation");
    let events = expect_ok(journal.events(id, 0, 10).await, "events() lists the events");
    assert_eq!(events.last().and_then(|event| event.reason.as_deref()), Some("why"), "expected: the reason is stored");
    let after = expect_ok(journal.read(id).await, "read() finds the operation");
    let after = after.map(|record| (record.epoch, record.status));
    assert_eq!(after, Some((open[0].epoch, open[0].status)), "expected: annotate() changes nothing else");
    let ended = all.iter().find(|record| record.status.is_over()).map(|record| record.id);
    let ended = expect_some(ended, "active_since() lists an operation that has ended");
    expect_conflict(journal.annotate(ended, "why").await, "annotate() refuses an operation that has ended");
}

async fn check_leases(journal: &impl Journal) {
    let held = begin(journal, &intent(&new_subject(), Lane::Change, LONG)).await;
    let stranger = OperationId::new().to_string();
    let answer = expect_ok(journal.claim(held.id, &stranger, LONG).await, "claim() by another worker returns a result");
    assert!(matches!(answer, Claim::Held(_)), "expected: a valid lease prevents a claim by another worker; {answer:?}");
    let holder = expect_ok(journal.lease_holder(held.id).await, "lease_holder() returns the worker with a valid lease");
    let holder = expect_some(holder, "lease_holder() finds a worker with a valid lease");
    assert!(
        held.worker == format!("{}/1", holder.node) && holder.leased_until > held.begun_at,
        "expected: lease_holder() names the node of the worker and the end of its lease; {holder:?}"
    );
    let own = journal.claim(held.id, &held.worker, LONG).await;
    let Claim::Taken(again) = expect_ok(own, "claim() by the same worker returns a result") else {
        return expect_some(None, "a worker can claim its own operation again before the lease expires");
    };
    assert_eq!(again.epoch, 2, "expected: each claim raises the epoch by one");
    expect_fenced(journal.check(held.fencing_token()).await, "check() of an old epoch");
    expect_fenced(journal.renew(held.fencing_token(), LONG).await, "renew() under an old epoch");
    let stale = journal.record(held.fencing_token(), &progress(OperationStatus::Running, 1, None)).await;
    expect_fenced(stale.map(drop), "record() under an old epoch");
    expect_ok(journal.check(again.fencing_token()).await, "check() accepts the newest epoch");

    let dead = begin(journal, &intent(&new_subject(), Lane::Change, Duration::ZERO)).await;
    assert!(is_due(journal, dead.id).await, "expected: an operation whose lease has expired is due");
    let holder = expect_ok(journal.lease_holder(dead.id).await, "lease_holder() of an expired lease returns a result");
    assert_eq!(holder, None, "expected: a worker whose lease has expired prevents no claim");
    let takeover = journal.claim(dead.id, &stranger, LONG).await;
    let Claim::Taken(taken) = expect_ok(takeover, "claim() of an expired lease returns a result") else {
        return expect_some(None, "another worker can claim an operation whose lease has expired");
    };
    assert_eq!(
        (taken.epoch, taken.worker.as_str()),
        (2, stranger.as_str()),
        "expected: claim() gives the operation to the new worker at epoch 2"
    );
    assert!(!is_due(journal, dead.id).await, "expected: a claimed operation is not due");
    let mine = Intent { recoverable: false, ..intent(&new_subject(), Lane::Change, Duration::ZERO) };
    begin(journal, &mine).await;
    assert!(!is_due(journal, mine.id).await, "expected: an operation that only its caller can continue is never due");
}

async fn check_progress(journal: &impl Journal) {
    let held = begin(journal, &intent(&new_subject(), Lane::Change, LONG)).await;
    for n in 1..=2 {
        let durable = n == 1;
        let written = Progress { durable, ..progress(OperationStatus::Running, n, Some(LONG)) };
        let event = expect_ok(journal.record(held.fencing_token(), &written).await, "record() writes progress");
        let expected = (i64::from(n), n, 3);
        assert_eq!((event.seq, event.done, event.total), expected, "expected: events are numbered without a gap");
    }
    let retry =
        Progress { error: Some("why".into()), retry_after: Some(LONG), ..progress(OperationStatus::Running, 2, None) };
    expect_ok(journal.record(held.fencing_token(), &retry).await, "record() writes a failure with a retry time");
    let read = expect_ok(journal.read(held.id).await, "read() returns a record");
    let read = expect_some(read, "read() finds the operation");
    assert_eq!(
        (read.done, read.intended, read.error.as_deref()),
        (2, 3, Some("why")),
        "expected: read() returns every field of the latest progress record"
    );
    let output = read.outputs.get("step-1");
    assert_eq!(output, Some(&serde_json::json!({ "n": 1 })), "expected: the outputs are stored by step name");
    assert!(!is_due(journal, held.id).await, "expected: an operation is not due before its retry time");
    let answer = expect_ok(journal.claim(held.id, "a stranger", LONG).await, "claim() returns a result");
    assert!(matches!(answer, Claim::Held(_)), "expected: no other worker can claim before the retry time; {answer:?}");
    let later = expect_ok(journal.events(held.id, 1, 10).await, "events() lists events");
    let numbers = later.iter().map(|e| e.seq).collect::<Vec<_>>();
    assert_eq!(numbers, [2, 3], "expected: events() continues after the given number");
    let done = journal.record(held.fencing_token(), &progress(OperationStatus::Done, 3, None)).await;
    expect_ok(done, "record() ends an operation");
    let after_end = journal.record(held.fencing_token(), &progress(OperationStatus::Running, 1, None)).await;
    expect_fenced(after_end.map(drop), "record() after the end");
    let answer = expect_ok(journal.claim(held.id, &held.worker, LONG).await, "claim() returns a result");
    assert!(matches!(answer, Claim::Over(_)), "expected: an ended operation cannot be claimed; got: {answer:?}");
    let open = expect_ok(journal.open().await, "open() lists operations");
    assert!(!open.iter().any(|r| r.id == held.id), "expected: open() does not list an ended operation");
}

async fn check_parking(journal: &impl Journal) {
    let subject = new_subject();
    let change = begin(journal, &intent(&subject, Lane::Change, LONG)).await;
    let preempting = begin(journal, &intent(&subject, Lane::Preempt, LONG)).await;
    let by = preempting.fencing_token();
    let stale = FencingToken { epoch: 7, ..by };
    expect_fenced(journal.park_change(&subject, stale).await.map(drop), "park_change() under another epoch");
    for _ in 0..2 {
        let parked = expect_ok(journal.park_change(&subject, by).await, "park_change() succeeds and can be repeated");
        let parked = expect_some(parked, "park_change() returns the parked Change");
        let expected = (change.id, OperationStatus::Parked);
        assert_eq!((parked.id, parked.status), expected, "expected: the open Change of the subject is parked");
    }
    let stale = journal.record(change.fencing_token(), &progress(OperationStatus::Done, 3, None)).await;
    expect_fenced(stale.map(drop), "record() by the worker of a parked operation");
    expect_fenced(journal.check(change.fencing_token()).await, "check() by the worker of a parked operation");
    let answer = expect_ok(journal.claim(change.id, &change.worker, LONG).await, "claim() returns a result");
    assert!(matches!(answer, Claim::Held(_)), "expected: no worker can claim a parked operation; got: {answer:?}");
    expect_conflict(
        journal.resume_parked(preempting.id).await.map(drop),
        "resume_parked() of an operation that is not parked",
    );
    let running = expect_ok(journal.undo_parked(change.id).await, "undo_parked() returns the operation");
    assert_eq!(running.status, OperationStatus::Undoing, "expected: undo_parked() sets the status Undoing");
    assert!(is_due(journal, change.id).await, "expected: any node can continue an operation that is no longer parked");
    expect_ok(journal.park_change(&subject, by).await, "park_change() parks the Change again");
    expect_ok(journal.abandon_change(&subject, by).await, "abandon_change() succeeds");
    let ended = expect_ok(journal.read(change.id).await, "read() returns a record");
    let ended = expect_some(ended, "read() finds the abandoned operation");
    assert_eq!(ended.status, OperationStatus::Undone, "expected: an abandoned Change has ended as Undone");
    let done = journal.record(by, &progress(OperationStatus::Done, 3, None)).await;
    expect_ok(done, "record() ends a Preempt operation");
    begin(journal, &intent(&subject, Lane::Change, LONG)).await;
}

async fn check_abandoning(journal: &impl Journal) {
    let subject = new_subject();
    let key = Some(OperationId::new().to_string());
    let open = begin(journal, &Intent { key, ..intent(&subject, Lane::Change, LONG) }).await;
    for _ in 0..2 {
        let ended = expect_ok(journal.abandon(open.id, "why").await, "abandon() succeeds and can be repeated");
        let expected = (OperationStatus::Abandoned, open.epoch + 1);
        assert_eq!(
            (ended.status, ended.epoch),
            expected,
            "expected: abandon() ends the operation and raises its epoch"
        );
    }
    let stale = journal.record(open.fencing_token(), &progress(OperationStatus::Running, 1, None)).await;
    expect_fenced(stale.map(drop), "record() by the worker of an abandoned operation");
    let events = expect_ok(journal.events(open.id, 0, 10).await, "events() lists events");
    let last = events.last().map(|e| (e.status, e.reason.as_deref()));
    assert_eq!(last, Some((OperationStatus::Abandoned, Some("why"))), "expected: abandon() appends one event");
    let read = expect_ok(journal.read(open.id).await, "read() returns a record");
    let read = expect_some(read, "read() finds the abandoned operation");
    assert_eq!(read.status, OperationStatus::Abandoned, "expected: read() returns the status Abandoned");
    let next = begin(journal, &intent(&subject, Lane::Change, LONG)).await;
    let done = journal.record(next.fencing_token(), &progress(OperationStatus::Done, 3, None)).await;
    expect_ok(done, "record() ends an operation");
    expect_conflict(journal.abandon(next.id, "why").await.map(drop), "abandon() of an operation that is done");
    expect_conflict(journal.abandon(OperationId::new(), "why").await.map(drop), "abandon() of an unknown operation");
}

async fn check_skipping(journal: &impl Journal) {
    let subject = new_subject();
    let change = begin(journal, &intent(&subject, Lane::Change, LONG)).await;
    let skipped = expect_ok(journal.skip_step(change.id, "one", "why").await, "skip_step() succeeds");
    let expected = (OperationStatus::Running, change.epoch + 1, true, false);
    let found = (skipped.status, skipped.epoch, skipped.is_skipped("one", false), skipped.is_skipped("one", true));
    assert_eq!(found, expected, "expected: skip_step() releases the operation and marks the step");
    assert!(is_due(journal, change.id).await, "expected: any node can continue after a step was skipped");
    let preempting = begin(journal, &intent(&subject, Lane::Preempt, LONG)).await;
    expect_ok(journal.park_change(&subject, preempting.fencing_token()).await, "park_change() succeeds");
    expect_ok(journal.undo_parked(change.id).await, "undo_parked() succeeds");
    expect_ok(journal.park_change(&subject, preempting.fencing_token()).await, "park_change() succeeds");
    let skipped = expect_ok(journal.skip_step(change.id, "one", "why").await, "skip_step() succeeds");
    let found = (skipped.status, skipped.is_skipped("one", true));
    let rule = "expected: an undo that was parked continues as an undo";
    assert_eq!(found, (OperationStatus::Undoing, true), "{rule}");
    expect_ok(journal.abandon(change.id, "why").await, "abandon() succeeds");
    let over = journal.skip_step(change.id, "one", "why").await;
    expect_conflict(over.map(drop), "skip_step() of an operation that has ended");
}

async fn check_follow_up(journal: &impl Journal) {
    let subject = new_subject();
    let change = begin(journal, &intent(&subject, Lane::Change, LONG)).await;
    let work = intent(&subject, Lane::FollowUp, Duration::ZERO);
    let stale = FencingToken { epoch: 7, ..change.fencing_token() };
    expect_fenced(journal.begin_follow_up(&work, stale).await.map(drop), "begin_follow_up() under another epoch");
    for _ in 0..2 {
        let begun = journal.begin_follow_up(&work, change.fencing_token()).await;
        let begun = expect_ok(begun, "begin_follow_up() succeeds and can be repeated");
        assert_eq!((begun.id, begun.lane), (work.id, Lane::FollowUp), "expected: one operation in the lane FollowUp");
    }
    let done = journal.record(change.fencing_token(), &progress(OperationStatus::Done, 3, None)).await;
    expect_ok(done, "record() ends an operation while its follow-up work is open");
    let late = intent(&subject, Lane::FollowUp, Duration::ZERO);
    let late = journal.begin_follow_up(&late, change.fencing_token()).await;
    expect_fenced(late.map(drop), "begin_follow_up() by an operation that has ended");
    begin(journal, &intent(&subject, Lane::Change, LONG)).await;
    let preempting = begin(journal, &intent(&subject, Lane::Preempt, LONG)).await;
    assert!(is_due(journal, work.id).await, "expected: follow-up work is due whatever the other lanes hold");
    let by = preempting.fencing_token();
    expect_ok(journal.park_change(&subject, by).await, "park_change() succeeds");
    assert!(is_due(journal, work.id).await, "expected: park_change() does not stop follow-up work");
    expect_ok(journal.abandon_change(&subject, by).await, "abandon_change() succeeds");
    let ended = expect_ok(journal.read(work.id).await, "read() returns a record");
    let ended = expect_some(ended, "read() finds the follow-up work");
    assert_eq!(ended.status, OperationStatus::Abandoned, "expected: abandon_change() ends follow-up work as Abandoned");
}
