#![expect(clippy::disallowed_methods, reason = "a store of one process has that process's clock")]
use super::{Begun, Claim, FAILURE, Intent, Journal, Progress, Record};
use crate::error::StoreError;
use crate::operation::{FencingToken, Lane, OperationEvent, OperationId, OperationStatus, Subject};
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use time::OffsetDateTime;

/// A journal in memory, by this process's clock: nothing of it survives, so it is for tests.
#[derive(Debug, Default)]
pub struct MemoryJournal(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    operations: BTreeMap<OperationId, Kept>,
    lanes: HashMap<String, [Option<OperationId>; 2]>,
}
#[derive(Debug)]
struct Kept {
    record: Record,
    key: Option<String>,
    events: Vec<OperationEvent>,
}

const CHANGE: usize = 0;
const FENCE: usize = 1;

impl MemoryJournal {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn joined(&self, intent: &Intent) -> Option<Begun> {
        let key = intent.key.as_ref()?;
        let has_key = |k: &&Kept| k.key.as_ref() == Some(key) && k.record.status != OperationStatus::Undone;
        let found = &self.operations.values().find(has_key)?.record;
        let same = found.kind == intent.kind && found.request == intent.request;
        Some(if same { Begun::Joined(Box::new(found.clone())) } else { Begun::KeyReused(found.id) })
    }
    fn held(&mut self, token: FencingToken) -> Result<&mut Kept, StoreError> {
        let kept = self.operations.get_mut(&token.operation).ok_or(StoreError::Fenced)?;
        if kept.record.epoch == token.epoch { Ok(kept) } else { Err(StoreError::Fenced) }
    }
    fn free(&mut self, id: OperationId) {
        for lane in self.lanes.values_mut().flatten() {
            if *lane == Some(id) {
                *lane = None;
            }
        }
    }
}

impl Kept {
    fn tell(&mut self, error: Option<String>) -> OperationEvent {
        let (r, seq) = (&self.record, self.events.len() as i64 + 1);
        let now = OffsetDateTime::now_utc();
        let event = OperationEvent::new(seq, r.id, now, r.step.clone(), r.status, r.done, r.total, error);
        self.events.push(event.clone());
        event
    }
    fn moves(&self) -> bool {
        matches!(self.record.status, OperationStatus::Running | OperationStatus::Undoing)
    }
    fn is_due(&self) -> bool {
        let now = OffsetDateTime::now_utc();
        self.moves() && self.record.leased_until <= now && self.record.retry_at.is_none_or(|at| at <= now)
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
    async fn begin(&self, intent: &Intent) -> Result<Begun, StoreError> {
        let mut state = self.state();
        if let Some(begun) = state.joined(intent) {
            return Ok(begun);
        }
        let lanes = state.lanes.entry(intent.subject.to_string()).or_default();
        let (mine, in_the_way) = match intent.lane {
            Lane::Preempt => (FENCE, lanes[FENCE]),
            Lane::Change => (CHANGE, lanes[FENCE].or(lanes[CHANGE])),
        };
        if let Some(id) = in_the_way {
            return Ok(Begun::Busy(id));
        }
        lanes[mine] = Some(intent.id);
        let record = new_record(intent);
        let kept = Kept { record: record.clone(), key: intent.key.clone(), events: vec![] };
        state.operations.insert(intent.id, kept);
        Ok(Begun::New(Box::new(record)))
    }
    async fn joined(&self, intent: &Intent) -> Result<Option<Begun>, StoreError> {
        Ok(self.state().joined(intent))
    }
    async fn now(&self) -> Result<OffsetDateTime, StoreError> {
        Ok(OffsetDateTime::now_utc())
    }
    async fn read(&self, id: OperationId) -> Result<Option<Record>, StoreError> {
        Ok(self.state().operations.get(&id).map(|k| k.record.clone()))
    }
    async fn claim(&self, id: OperationId, worker: &str, lease: Duration) -> Result<Claim, StoreError> {
        let mut state = self.state();
        let kept = state.operations.get_mut(&id).ok_or_else(|| StoreError::conflict("no such operation"))?;
        if kept.moves() && (kept.record.worker == worker || kept.is_due()) {
            let record = &mut kept.record;
            (record.worker, record.retry_at) = (worker.into(), None);
            (record.epoch, record.attempts) = (record.epoch + 1, record.attempts + 1);
            record.leased_until = OffsetDateTime::now_utc() + lease;
            return Ok(Claim::Taken(Box::new(record.clone())));
        }
        let record = Box::new(kept.record.clone());
        Ok(if record.status.is_over() { Claim::Over(record) } else { Claim::Held(record) })
    }
    async fn renew(&self, token: FencingToken, lease: Duration) -> Result<(), StoreError> {
        let mut state = self.state();
        let kept = state.held(token)?;
        if !kept.moves() {
            return Err(StoreError::Fenced);
        }
        kept.record.leased_until = OffsetDateTime::now_utc() + lease;
        Ok(())
    }
    async fn check(&self, token: FencingToken) -> Result<(), StoreError> {
        self.state().held(token).map(drop)
    }
    async fn record(&self, token: FencingToken, progress: &Progress) -> Result<OperationEvent, StoreError> {
        let mut state = self.state();
        let kept = state.held(token)?;
        if !kept.moves() {
            return Err(StoreError::Fenced);
        }
        let (now, record) = (OffsetDateTime::now_utc(), &mut kept.record);
        if (record.done, record.intended) != (progress.done, progress.intended) {
            record.attempts = 0;
        }
        if let Some(output) = &progress.output {
            let name = if progress.error.is_some() { FAILURE } else { &*progress.step };
            record.outputs.insert(name.into(), output.clone());
        }
        if progress.error.is_some() || progress.status == OperationStatus::Running {
            record.error.clone_from(&progress.error);
        }
        (record.status, record.step) = (progress.status, progress.step.to_string());
        (record.intended, record.done) = (progress.intended, progress.done);
        record.retry_at = progress.retry_after.map(|d| now + d);
        record.leased_until = progress.lease.map_or(now, |d| now + d);
        let event = kept.tell(progress.error.clone());
        if progress.status.is_over() {
            state.free(token.operation);
        }
        Ok(event)
    }
    async fn park_change(&self, subject: &Subject, by: FencingToken) -> Result<Option<Record>, StoreError> {
        let mut state = self.state();
        state.held(by)?;
        let Some(id) = state.lanes.get(&subject.to_string()).and_then(|l| l[CHANGE]) else { return Ok(None) };
        let Some(kept) = state.operations.get_mut(&id) else { return Ok(None) };
        kept.record.epoch += 1;
        if kept.moves() {
            let error = format!("stopped by operation {}", by.operation);
            (kept.record.status, kept.record.retry_at) = (OperationStatus::Parked, None);
            (kept.record.error, kept.record.leased_until) = (Some(error.clone()), OffsetDateTime::now_utc());
            kept.tell(Some(error));
        }
        Ok(Some(kept.record.clone()))
    }
    async fn abandon_change(&self, subject: &Subject, by: FencingToken) -> Result<(), StoreError> {
        let mut state = self.state();
        state.held(by)?;
        let Some(id) = state.lanes.get(&subject.to_string()).and_then(|l| l[CHANGE]) else { return Ok(()) };
        if let Some(kept) = state.operations.get_mut(&id)
            && kept.record.status == OperationStatus::Parked
        {
            kept.record.status = OperationStatus::Undone;
            let error = kept.record.error.clone();
            kept.tell(error);
            state.free(id);
        }
        Ok(())
    }
    async fn unpark(&self, id: OperationId, undo: bool) -> Result<Record, StoreError> {
        let mut state = self.state();
        let parked = state.operations.get_mut(&id).filter(|k| k.record.status == OperationStatus::Parked);
        let kept = parked.ok_or_else(|| StoreError::conflict("the operation is not parked"))?;
        kept.record.status = if undo { OperationStatus::Undoing } else { OperationStatus::Running };
        (kept.record.leased_until, kept.record.retry_at) = (OffsetDateTime::now_utc(), None);
        kept.record.attempts = 0;
        kept.tell(None);
        Ok(kept.record.clone())
    }
    async fn open(&self) -> Result<Vec<Record>, StoreError> {
        let state = self.state();
        Ok(state.operations.values().filter(|k| !k.record.status.is_over()).map(|k| k.record.clone()).collect())
    }
    async fn due(&self, limit: u32) -> Result<Vec<OperationId>, StoreError> {
        let state = self.state();
        let due = state.operations.values().filter(|k| k.is_due() && k.record.recoverable);
        Ok(due.map(|k| k.record.id).take(limit as usize).collect())
    }
    async fn events(&self, id: OperationId, after: i64, limit: u32) -> Result<Vec<OperationEvent>, StoreError> {
        let state = self.state();
        let events = state.operations.get(&id).map(|k| k.events.as_slice()).unwrap_or_default();
        Ok(events.iter().filter(|e| e.seq > after).take(limit as usize).cloned().collect())
    }
    async fn history(&self, subject: &Subject) -> Result<Vec<Record>, StoreError> {
        let state = self.state();
        let theirs = state.operations.values().filter(|k| k.record.subject == *subject);
        Ok(theirs.map(|k| k.record.clone()).collect())
    }
}
