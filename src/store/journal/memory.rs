//! A journal in the memory of one process, for tests of applications and of this crate.
//!
//! It follows the same rules as [`PgJournal`](super::PgJournal): one open operation in each lane of a subject, and
//! writes only under the newest epoch. It never returns `LostWrites`.
#![expect(clippy::disallowed_methods, reason = "a store in one process's memory uses that process's clock")]
use super::{ABANDONED, BACKWARD, Begun, Claim, FAILURE, Intent, Journal, Progress, Record, skip_key};
use crate::error::{BeginError, Rows, StoreError};
use crate::operation::{FencingToken, Lane, LeaseHolder, OperationEvent, OperationId, OperationStatus, Subject};
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use time::OffsetDateTime;

/// A journal in memory for tests. It uses the clock of this process and loses everything when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryJournal(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    operations: BTreeMap<OperationId, Entry>,
    lanes: HashMap<String, [Option<OperationId>; 2]>,
}
#[derive(Debug)]
struct Entry {
    record: Record,
    key: Option<String>,
    events: Vec<OperationEvent>,
}

const CHANGE: usize = 0;
const PREEMPT: usize = 1;

impl MemoryJournal {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics between two writes under this lock, so a poisoned state is still consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find_joined(&self, intent: &Intent) -> Result<Option<Record>, BeginError> {
        let Some(key) = &intent.key else { return Ok(None) };
        let is_undone = |k: &Entry| matches!(k.record.status, OperationStatus::Undone | OperationStatus::Abandoned);
        let has_key = |k: &&Entry| k.key.as_ref() == Some(key) && !is_undone(k);
        let Some(Entry { record: found, .. }) = self.operations.values().find(has_key) else { return Ok(None) };
        let is_same = found.kind == intent.kind && crate::json::is_same(&found.request, &intent.request);
        if is_same { Ok(Some(found.clone())) } else { Err(BeginError::KeyReused { operation: found.id }) }
    }
    /// The entry of an operation, if `token` has its newest epoch.
    fn fenced_entry(&mut self, token: FencingToken) -> Result<&mut Entry, StoreError> {
        let entry = self.operations.get_mut(&token.operation).ok_or(StoreError::Fenced)?;
        if entry.record.epoch == token.epoch { Ok(entry) } else { Err(StoreError::Fenced) }
    }
    fn unpark(&mut self, id: OperationId, status: OperationStatus) -> Result<Record, StoreError> {
        let parked = self.operations.get_mut(&id).filter(|k| k.record.status == OperationStatus::Parked);
        let entry = parked.ok_or_else(|| StoreError::conflict("the operation is not parked"))?;
        entry.record.status = status;
        if status == OperationStatus::Undoing {
            entry.record.outputs.insert(BACKWARD.into(), true.into());
        }
        (entry.record.leased_until, entry.record.retry_at) = (OffsetDateTime::now_utc(), None);
        entry.record.attempts = 0;
        entry.append_event(None);
        Ok(entry.record.clone())
    }
    fn free_lane(&mut self, id: OperationId) {
        for lane in self.lanes.values_mut().flatten() {
            if *lane == Some(id) {
                *lane = None;
            }
        }
    }
}

impl Entry {
    fn append_event(&mut self, error: Option<String>) -> OperationEvent {
        let (r, seq) = (&self.record, self.events.len() as i64 + 1);
        let now = OffsetDateTime::now_utc();
        let event = OperationEvent::new(seq, r.id, now, r.step.clone(), r.status, r.done, r.total, error);
        self.events.push(event.clone());
        event
    }
    fn append_reason(&mut self, step: &str, reason: &str) {
        let mut event = self.append_event(None);
        (event.step, event.reason) = (step.into(), Some(reason.into()));
        self.events.pop();
        self.events.push(event);
    }
    /// Ends the operation without undoing it, and replaces its worker.
    fn abandon(&mut self, reason: &str) {
        self.record.epoch += 1;
        self.record.status = OperationStatus::Abandoned;
        self.record.retry_at = None;
        self.record.outputs.insert(ABANDONED.into(), reason.into());
        self.append_reason(&self.record.step.clone(), reason);
    }
    fn is_in_progress(&self) -> bool {
        matches!(self.record.status, OperationStatus::Running | OperationStatus::Undoing)
    }
    fn is_due(&self) -> bool {
        let now = OffsetDateTime::now_utc();
        self.is_in_progress() && self.record.leased_until <= now && self.record.retry_at.is_none_or(|at| at <= now)
    }
}

fn new_record(intent: &Intent) -> Record {
    Record {
        id: intent.id,
        kind: intent.kind.to_string(),
        lane: intent.lane,
        subject: intent.subject.clone(),
        reason: intent.reason.clone(),
        request: intent.request.clone(),
        status: OperationStatus::Running,
        step: String::new(),
        intended: intent.intended,
        done: 0,
        total: intent.total,
        outputs: Default::default(),
        error: None,
        attempts: 0,
        epoch: 1,
        worker: intent.worker.clone(),
        begun_at: OffsetDateTime::now_utc(),
        leased_until: OffsetDateTime::now_utc() + intent.lease,
        retry_at: None,
        recoverable: intent.recoverable,
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn begin(&self, intent: &Intent) -> Result<Begun, BeginError> {
        let mut state = self.state();
        if let Some(joined) = state.find_joined(intent)? {
            return Ok(Begun::Joined(Box::new(joined)));
        }
        let lanes = state.lanes.entry(intent.subject.to_string()).or_default();
        let (lane, occupant) = match intent.lane {
            Lane::Preempt => (PREEMPT, lanes[PREEMPT]),
            Lane::Change | Lane::FollowUp => (CHANGE, lanes[PREEMPT].or(lanes[CHANGE])),
        };
        if let Some(operation) = occupant {
            let status = state.operations.get(&operation).map_or(OperationStatus::Running, |k| k.record.status);
            return Err(BeginError::Busy { operation, status });
        }
        lanes[lane] = Some(intent.id);
        let record = new_record(intent);
        let entry = Entry { record: record.clone(), key: intent.key.clone(), events: vec![] };
        state.operations.insert(intent.id, entry);
        Ok(Begun::New(Box::new(record)))
    }
    async fn find_joined(&self, intent: &Intent) -> Result<Option<Record>, BeginError> {
        self.state().find_joined(intent)
    }
    async fn now(&self) -> Result<OffsetDateTime, StoreError> {
        Ok(OffsetDateTime::now_utc())
    }
    async fn read(&self, id: OperationId) -> Result<Option<Record>, StoreError> {
        Ok(self.state().operations.get(&id).map(|k| k.record.clone()))
    }
    async fn claim(&self, id: OperationId, worker: &str, lease: Duration) -> Result<Claim, StoreError> {
        let mut state = self.state();
        let entry = state
            .operations
            .get_mut(&id)
            .ok_or_else(|| StoreError::conflict("the journal has no operation with this id"))?;
        if entry.is_in_progress() && (entry.record.worker == worker || entry.is_due()) {
            let record = &mut entry.record;
            (record.worker, record.retry_at) = (worker.into(), None);
            (record.epoch, record.attempts) = (record.epoch + 1, record.attempts + 1);
            record.leased_until = OffsetDateTime::now_utc() + lease;
            return Ok(Claim::Taken(Box::new(record.clone())));
        }
        let record = Box::new(entry.record.clone());
        Ok(if record.status.is_over() { Claim::Over(record) } else { Claim::Held(record) })
    }
    async fn lease_holder(&self, id: OperationId) -> Result<Option<LeaseHolder>, StoreError> {
        let state = self.state();
        let entry = state.operations.get(&id).filter(|k| k.is_in_progress());
        let held = entry.filter(|k| k.record.leased_until > OffsetDateTime::now_utc());
        Ok(held.map(|k| LeaseHolder::new(&k.record.worker, k.record.leased_until)))
    }
    async fn renew(&self, token: FencingToken, lease: Duration) -> Result<(), StoreError> {
        let mut state = self.state();
        let entry = state.fenced_entry(token)?;
        if !entry.is_in_progress() {
            return Err(StoreError::Fenced);
        }
        entry.record.leased_until = OffsetDateTime::now_utc() + lease;
        Ok(())
    }
    async fn check(&self, token: FencingToken) -> Result<(), StoreError> {
        self.state().fenced_entry(token).map(drop)
    }
    async fn record(&self, token: FencingToken, progress: &Progress) -> Result<OperationEvent, StoreError> {
        let mut state = self.state();
        let entry = state.fenced_entry(token)?;
        if !entry.is_in_progress() {
            return Err(StoreError::Fenced);
        }
        let (now, record) = (OffsetDateTime::now_utc(), &mut entry.record);
        if (record.done, record.intended, record.status) != (progress.done, progress.intended, progress.status) {
            record.attempts = 0;
        }
        if let Some(output) = &progress.output {
            let name = if progress.error.is_some() { FAILURE } else { &*progress.step };
            record.outputs.insert(name.into(), output.clone());
        }
        if (record.status, progress.status) == (OperationStatus::Undoing, OperationStatus::Parked) {
            record.outputs.insert(BACKWARD.into(), true.into());
        }
        if progress.error.is_some() || progress.status == OperationStatus::Running {
            record.error.clone_from(&progress.error);
        }
        (record.status, record.step) = (progress.status, progress.step.to_string());
        (record.intended, record.done) = (progress.intended, progress.done);
        record.retry_at = progress.retry_after.map(|d| now + d);
        record.leased_until = progress.lease.map_or(now, |d| now + d);
        let event = entry.append_event(progress.error.clone());
        if progress.status.is_over() {
            state.free_lane(token.operation);
        }
        Ok(event)
    }
    async fn begin_follow_up(&self, intent: &Intent, by: FencingToken) -> Result<Record, StoreError> {
        let mut state = self.state();
        if !state.fenced_entry(by)?.is_in_progress() {
            return Err(StoreError::Fenced);
        }
        let new = || Entry { record: new_record(intent), key: None, events: vec![] };
        Ok(state.operations.entry(intent.id).or_insert_with(new).record.clone())
    }
    async fn park_change(&self, subject: &Subject, by: FencingToken) -> Result<Option<Record>, StoreError> {
        let mut state = self.state();
        state.fenced_entry(by)?;
        let Some(id) = state.lanes.get(&subject.to_string()).and_then(|l| l[CHANGE]) else { return Ok(None) };
        let Some(entry) = state.operations.get_mut(&id) else { return Ok(None) };
        entry.record.epoch += 1;
        if entry.is_in_progress() {
            let error = format!("stopped by operation {}", by.operation);
            if entry.record.status == OperationStatus::Undoing {
                entry.record.outputs.insert(BACKWARD.into(), true.into());
            }
            (entry.record.status, entry.record.retry_at) = (OperationStatus::Parked, None);
            (entry.record.error, entry.record.leased_until) = (Some(error.clone()), OffsetDateTime::now_utc());
            entry.append_event(Some(error));
        }
        Ok(Some(entry.record.clone()))
    }
    async fn abandon_change(&self, subject: &Subject, by: FencingToken) -> Result<(), StoreError> {
        let mut state = self.state();
        state.fenced_entry(by)?;
        let follows = |r: &Record| r.lane == Lane::FollowUp && r.subject == *subject && !r.status.is_over();
        for entry in state.operations.values_mut().filter(|k| follows(&k.record)) {
            entry.abandon(&format!("operation {}", by.operation));
        }
        let Some(id) = state.lanes.get(&subject.to_string()).and_then(|l| l[CHANGE]) else { return Ok(()) };
        if let Some(entry) = state.operations.get_mut(&id)
            && entry.record.status == OperationStatus::Parked
        {
            entry.record.status = OperationStatus::Undone;
            let error = entry.record.error.clone();
            entry.append_event(error);
            state.free_lane(id);
        }
        Ok(())
    }
    async fn resume_parked(&self, id: OperationId) -> Result<Record, StoreError> {
        self.state().unpark(id, OperationStatus::Running)
    }
    async fn undo_parked(&self, id: OperationId) -> Result<Record, StoreError> {
        self.state().unpark(id, OperationStatus::Undoing)
    }
    async fn abandon(&self, id: OperationId, reason: &str) -> Result<Record, StoreError> {
        let mut state = self.state();
        let entry = state.operations.get_mut(&id).ok_or_else(|| StoreError::conflict("no such operation"))?;
        match entry.record.status {
            OperationStatus::Abandoned => return Ok(entry.record.clone()),
            status if status.is_over() => return Err(StoreError::conflict("the operation has ended")),
            _ => entry.abandon(reason),
        }
        let record = entry.record.clone();
        state.free_lane(id);
        Ok(record)
    }
    async fn skip_step(&self, id: OperationId, step: &str, reason: &str) -> Result<Record, StoreError> {
        let mut state = self.state();
        let open = state.operations.get_mut(&id).filter(|k| !k.record.status.is_over());
        let entry = open.ok_or_else(|| StoreError::conflict("the operation has ended"))?;
        let record = &mut entry.record;
        let backward = record.is_backward();
        record.outputs.insert(skip_key(step, backward), reason.into());
        record.status = if backward { OperationStatus::Undoing } else { OperationStatus::Running };
        (record.epoch, record.attempts, record.worker) = (record.epoch + 1, 0, String::new());
        (record.leased_until, record.retry_at) = (OffsetDateTime::now_utc(), None);
        entry.append_reason(step, reason);
        Ok(entry.record.clone())
    }
    async fn open(&self) -> Result<Rows<Record>, StoreError> {
        let state = self.state();
        Ok(state.operations.values().filter(|k| !k.record.status.is_over()).map(|k| k.record.clone()).collect())
    }
    async fn due(&self, limit: u32) -> Result<Vec<OperationId>, StoreError> {
        let state = self.state();
        let due = state.operations.values().filter(|k| k.is_due() && k.record.recoverable);
        Ok(due.map(|k| k.record.id).take(limit as usize).collect())
    }
    async fn events(&self, id: OperationId, after: i64, limit: u32) -> Result<Rows<OperationEvent>, StoreError> {
        let state = self.state();
        let events = state.operations.get(&id).map(|k| k.events.as_slice()).unwrap_or_default();
        Ok(events.iter().filter(|e| e.seq > after).take(limit as usize).cloned().collect())
    }
    async fn active_since(
        &self, subject: &Subject, since: OffsetDateTime, limit: u32,
    ) -> Result<Rows<Record>, StoreError> {
        let state = self.state();
        let ended_at = |k: &Entry| k.events.last().map_or(k.record.begun_at, |event| event.at);
        let is_active = |k: &&Entry| !k.record.status.is_over() || ended_at(k) >= since;
        let of_subject = state.operations.values().rev().filter(|k| k.record.subject == *subject).filter(is_active);
        Ok(of_subject.map(|k| k.record.clone()).take(limit as usize).collect())
    }
    async fn annotate(&self, id: OperationId, reason: &str) -> Result<(), StoreError> {
        let mut state = self.state();
        let open = state.operations.get_mut(&id).filter(|k| !k.record.status.is_over());
        let entry = open.ok_or_else(|| StoreError::conflict("the operation has ended"))?;
        let step = entry.record.step.clone();
        entry.append_reason(&step, reason);
        Ok(())
    }
    async fn history(&self, subject: &Subject) -> Result<Rows<Record>, StoreError> {
        let state = self.state();
        let matching = state.operations.values().filter(|k| k.record.subject == *subject);
        Ok(matching.map(|k| k.record.clone()).collect())
    }
}
