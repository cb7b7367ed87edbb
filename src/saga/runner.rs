//! The loop in which one worker drives one operation: it runs the steps, or undoes them after a failure.
//!
//! The caller has begun or claimed the operation. After each failure the runner claims it again and makes a new
//! context.
//!
//! Invariants: the runner commits the intent of a step before it runs the step. The record in memory counts
//! only steps whose completion the journal has recorded. A worker that has been replaced stops and undoes nothing.
use super::{Engine, Execution, Observer, Outcome, Saga};
use crate::error::{BoxError, Failure, FailureState, StepError, StoreError, chain};
use crate::operation::OperationStatus;
use crate::store::journal::{Claim, FAILURE, FailureFacts, Progress, RETRY_UNDONE, StillUndoing};
use futures_util::future::join;
use serde_json::Value;
use std::{future::Future, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};

/// Drives the operation until it ends, waits for a retry, is parked, or is taken over by a newer worker.
/// `context` is the first worker's state, if the caller has prepared one.
pub(super) async fn drive<C: Send + 'static>(
    engine: &Engine, saga: &Saga<C>, run: Execution, context: Option<C>, observe: &Observer,
) -> Result<Outcome, StoreError> {
    let deadline = undo_deadline(engine, &run).await;
    let mut runner = Runner { engine, saga, run, observe, undo_cause: None, deadline };
    let (mut attempt, mut prepared) = (0, context);
    loop {
        let before = runner.position();
        let (step, error) = match runner.run_or_undo(prepared.take()).await {
            Ok(()) => return Ok(runner.outcome(None)),
            Err(Stop::Fenced) => return runner.read_outcome().await,
            Err(Stop::Closing) => return runner.release().await,
            Err(Stop::Step(step, error)) => (step, error),
        };
        attempt = if runner.position() == before { attempt + 1 } else { 1 };
        if let Some(outcome) = runner.handle_failure(step, error, &mut attempt).await? {
            return Ok(outcome);
        }
    }
}

/// The reason why the runner stopped before the last step.
enum Stop {
    /// `close()` was called. The runner stops only between two steps.
    Closing,
    /// A newer worker has taken over.
    Fenced,
    /// This step failed.
    Step(&'static str, StepError),
}

struct Runner<'a, C> {
    engine: &'a Engine,
    saga: &'a Saga<C>,
    run: Execution,
    observe: &'a Observer,
    /// The step that failed and its error, once the runner has started undoing because of it.
    undo_cause: Option<UndoCause>,
    /// The time at which the runner starts undoing an operation that can still be undone.
    deadline: Instant,
}

/// Computes the deadline from the operation's age by the landlord's clock, because another node may have begun the
/// operation. If the landlord is unreachable, assume age zero; the next journal call fails anyway.
async fn undo_deadline(engine: &Engine, run: &Execution) -> Instant {
    let age = match run.is_first() {
        true => Ok(Duration::ZERO),
        false => engine.journal.now().await.map(|now| (now - run.record().begun_at).try_into().unwrap_or_default()),
    };
    Instant::now() + engine.settings.deadline.saturating_sub(age.unwrap_or_default())
}

impl<C: Send + 'static> Runner<'_, C> {
    /// Continues from the journal's state until the operation ends or the first error occurs.
    async fn run_or_undo(&mut self, prepared: Option<C>) -> Result<(), Stop> {
        // The stored name under which a failure of the fence or of the new context is recorded, also for the first
        // worker of an operation.
        let step = |error| Stop::from("takeover", error);
        self.engine.fence(self.run.record()).await.map_err(step)?;
        let mut context = match prepared {
            Some(context) => context,
            None => self.saga.new_context(&self.run).map_err(step)?,
        };
        if self.run.record().status == OperationStatus::Undoing {
            self.undo_steps(&mut context).await
        } else {
            self.run_steps(&mut context).await
        }
    }

    async fn run_steps(&mut self, context: &mut C) -> Result<(), Stop> {
        // The completion record of the previous step, if it may be written while the next step runs. A crash in between
        // only repeats an idempotent step whose intent is committed.
        let mut unwritten = None;
        // An earlier version of the saga may have had more steps. The operation then repeats the last step of this
        // version and ends.
        let last = self.saga.step_list().len().saturating_sub(1);
        for (at, step) in self.saga.step_list().iter().enumerate().skip((self.run.record().done as usize).min(last)) {
            let name = step.name();
            if self.engine.stop.is_cancelled() {
                self.write(unwritten.as_ref()).await.map_err(|e| Stop::from(name, e))?;
                self.apply(unwritten);
                return Err(Stop::Closing);
            }
            if self.run.record().intended as usize <= at {
                let intended = self.saga.intent_group_end(at);
                let intent = Progress { intended, durable: true, ..self.progress(name) };
                self.record(intent).await.map_err(|e| Stop::from(name, e))?;
            }
            if self.run.record().is_skipped(name, false) {
                self.write(unwritten.as_ref()).await.map_err(|e| Stop::from(name, e))?;
                self.apply(unwritten);
                unwritten = self.complete_step(at, name, None).await.map_err(|e| Stop::from(name, e))?;
                continue;
            }
            tracing::debug!(operation = %self.run.operation(), step = name, "step begins");
            let running = self.engine.run_with_lease(&self.run, step.run(&self.run, context));
            let (result, written) = join(self.run_before_deadline(running), self.write(unwritten.as_ref())).await;
            written.map_err(|e| Stop::from(name, e))?;
            self.apply(unwritten);
            let output = result.map_err(|e| Stop::from(name, e))?;
            unwritten = self.complete_step(at, name, Some(output)).await.map_err(|e| Stop::from(name, e))?;
        }
        Ok(())
    }

    /// Runs a step and fails at the deadline. After the pivot step there is no deadline, because the operation can no
    /// longer be undone.
    async fn run_before_deadline<T>(&self, step: impl Future<Output = Result<T, StepError>>) -> Result<T, StepError> {
        if !self.saga.can_undo(self.run.record().intended) {
            return step.await;
        }
        match timeout_at(self.deadline, step).await {
            Ok(result) => result,
            Err(_) => Err(StepError::fail(DeadlineExceeded(self.engine.settings.deadline))),
        }
    }

    /// Records that a step has completed. After the last step of an intent the same record contains the intent of the
    /// next steps, or ends the operation. A skipped step has no output. Otherwise nothing depends on the record: it is returned, for the caller to
    /// write while the next step runs.
    async fn complete_step(
        &mut self, at: usize, name: &'static str, output: Option<Value>,
    ) -> Result<Option<Progress>, StepError> {
        let next = at + 1;
        let mut progress = Progress { done: next as u32, output: output.clone(), ..self.progress(name) };
        if next == self.saga.step_list().len() {
            let durable = !(self.saga.final_record_is_repeatable() && self.engine.is_one_database());
            let done = self.run.record().total;
            progress = Progress { status: OperationStatus::Done, done, lease: None, durable, ..progress };
        } else if self.run.record().intended as usize == next {
            // The intent must be durable before the step that it covers runs.
            let durable = !self.is_landlord_only(next);
            progress = Progress { intended: self.saga.intent_group_end(next), durable, ..progress };
        } else {
            // The next step may read the output.
            if let Some(output) = output {
                self.run.store_output(name, output);
            }
            return Ok(Some(progress));
        }
        self.record(progress).await.map(|()| None)
    }

    /// Whether the steps that share the intent of step `at` write to the landlord only, so that none of their effects
    /// can survive a crash that loses the intent.
    fn is_landlord_only(&self, at: usize) -> bool {
        let group = &self.saga.step_list()[at..self.saga.intent_group_end(at) as usize];
        self.engine.is_one_database() && group.iter().all(|step| step.landlord_only())
    }

    async fn undo_steps(&mut self, context: &mut C) -> Result<(), Stop> {
        let steps = self.saga.step_list();
        let from = (self.run.record().intended as usize).min(steps.len());
        for at in (0..from).rev() {
            let (step, name) = (&steps[at], steps[at].name());
            if self.engine.stop.is_cancelled() {
                return Err(Stop::Closing);
            }
            if !self.run.record().is_skipped(name, true) {
                tracing::debug!(operation = %self.run.operation(), step = name, "undo begins");
                let result = self.engine.run_with_lease(&self.run, step.undo(&self.run, context)).await;
                result.map_err(|e| Stop::from(name, e))?;
            }
            let at = at as u32;
            let mut progress = Progress { intended: at, done: at.min(self.run.record().done), ..self.progress(name) };
            if at == 0 {
                progress = Progress { status: OperationStatus::Undone, lease: None, durable: true, ..progress };
            }
            self.record(progress).await.map_err(|e| Stop::from(name, e))?;
        }
        Ok(())
    }

    /// Decides between a retry, an undo and giving up. `None`: the runner continues under a new epoch.
    async fn handle_failure(
        &mut self, step: &'static str, error: StepError, attempt: &mut u32,
    ) -> Result<Option<Outcome>, StoreError> {
        let settings = self.engine.settings;
        let cause = error.cause_text();
        tracing::warn!(operation = %self.run.operation(), step, attempt, error = %cause, "step failed");
        if error.is_retry() && *attempt < settings.attempts && Instant::now() < self.deadline {
            sleep(settings.backoff_delay(*attempt)).await;
        } else {
            if let Some(outcome) = self.record_failure(step, error, *attempt).await? {
                return Ok(Some(outcome));
            }
            *attempt = 0;
        }
        self.reclaim().await
    }

    /// Claims the operation again. A statement of the last attempt may still be running on one of its sessions; the new
    /// epoch makes the stores reject its writes. Returns an outcome if another worker has the operation, or if it
    /// ended.
    async fn reclaim(&mut self) -> Result<Option<Outcome>, StoreError> {
        let settings = self.engine.settings;
        let worker = self.run.record().worker.clone();
        let mut attempt = 0;
        let claim = loop {
            attempt += 1;
            match self.engine.journal.claim(self.run.operation(), &worker, settings.lease).await {
                Err(error) if error.is_transient() && attempt < settings.attempts => {
                    sleep(settings.backoff_delay(attempt)).await;
                }
                claim => break claim?,
            }
        };
        let (is_claimed, record) = match claim {
            Claim::Taken(record) => (true, record),
            Claim::Held(record) | Claim::Over(record) => (false, record),
        };
        self.run = Execution::new(self.engine.journal.clone(), *record, false);
        Ok(if is_claimed { None } else { Some(self.outcome(None)) })
    }

    /// How far the operation is, to tell whether an attempt has made progress.
    fn position(&self) -> (OperationStatus, u32, u32) {
        let record = self.run.record();
        (record.status, record.intended, record.done)
    }

    /// Records the failure and decides how the operation continues. `Some`: this worker leaves it to recovery or to an
    /// administrator. `None`: this worker continues, usually by starting to undo.
    async fn record_failure(
        &mut self, step: &'static str, error: StepError, attempt: u32,
    ) -> Result<Option<Outcome>, StoreError> {
        let wait = Some(self.engine.settings.backoff_delay(self.run.record().attempts.max(attempt)));
        let base = Progress { error: Some(error.cause_text()), durable: true, ..self.progress(step) };
        let can_undo = self.saga.can_undo(self.run.record().intended);
        let (progress, state) = if self.run.record().status == OperationStatus::Undoing {
            match self.is_undo_hopeless(&error) {
                true => (Progress { status: OperationStatus::Parked, lease: None, ..base }, FailureState::Parked),
                false => (Progress { lease: None, retry_after: wait, ..base }, FailureState::Undoing),
            }
        } else if error.is_park() {
            let state = if can_undo { FailureState::ParkedBeforePivot } else { FailureState::Parked };
            (Progress { status: OperationStatus::Parked, lease: None, ..base }, state)
        } else if can_undo {
            let output = failure_facts(step, &error);
            (Progress { status: OperationStatus::Undoing, output, ..base }, FailureState::Undone)
        } else if error.is_retry() {
            (Progress { lease: None, retry_after: wait, ..base }, FailureState::Continuing)
        } else {
            (Progress { status: OperationStatus::Parked, lease: None, ..base }, FailureState::Parked)
        };
        let retry_after = progress.retry_after;
        match self.record(progress).await {
            Err(e) if e.is_fenced() => return self.read_outcome().await.map(Some),
            // The landlord's crash may have caused this failure. The runner continues from the landlord's state.
            Err(e) if e.is_lost_writes() => return Ok(None),
            recorded => recorded.map_err(to_store_error)?,
        }
        if state == FailureState::Undone {
            let is_transient = error.is_retry();
            self.undo_cause = Some(UndoCause { step: step.into(), is_transient, cause: error.into_cause() });
            return Ok(None);
        }
        let failure = Failure { retry_after, ..Failure::new(self.run.operation(), step, state, error.into_cause()) };
        Ok(Some(self.outcome(Some(failure))))
    }

    /// Whether only an administrator can help an undo that failed with this error. A transient error never is hopeless.
    fn is_undo_hopeless(&self, error: &StepError) -> bool {
        let tried_often = self.run.record().attempts >= self.engine.settings.attempts;
        error.is_park() || (!error.is_retry() && tried_often)
    }

    /// Reads the current record, after another worker has taken over or stopped the operation.
    async fn read_outcome(&mut self) -> Result<Outcome, StoreError> {
        if let Some(record) = self.engine.journal.read(self.run.operation()).await? {
            *self.run.record_mut() = record;
        }
        Ok(self.outcome(None))
    }

    /// Releases the lease without a change of status, so that any node can continue the operation at once.
    async fn release(mut self) -> Result<Outcome, StoreError> {
        match self.record(Progress::of(self.run.record())).await {
            Err(e) if e.is_fenced() => return self.read_outcome().await,
            Err(e) if !e.is_lost_writes() => return Err(to_store_error(e)),
            _ => {}
        }
        // Only the caller needs this text. The journal stores none, because nothing has failed.
        self.run.record_mut().error.get_or_insert_with(|| String::from(STOPPED));
        Ok(self.outcome(None))
    }

    /// A progress record that changes nothing except the step's name and the lease.
    fn progress(&self, step: &'static str) -> Progress {
        let lease = Some(self.engine.settings.lease);
        Progress { step: step.into(), lease, ..Progress::of(self.run.record()) }
    }

    /// Writes a progress record and applies it to the record in memory.
    async fn record(&mut self, progress: Progress) -> Result<(), StepError> {
        self.write(Some(&progress)).await?;
        self.apply(Some(progress));
        Ok(())
    }

    /// Writes a progress record, if there is one, to the journal, and reports its event to the log and to the observer.
    async fn write(&self, progress: Option<&Progress>) -> Result<(), StepError> {
        let Some(progress) = progress else { return Ok(()) };
        let event = self.engine.journal.record(self.run.fencing_token(), progress).await?;
        tracing::info!(operation = %event.operation, step = %event.step, done = event.done, total = event.total,
            status = %event.status, "operation progress recorded");
        self.observe.notify(&event);
        Ok(())
    }

    /// Applies a written progress record to the record in memory.
    fn apply(&mut self, progress: Option<Progress>) {
        let Some(progress) = progress else { return };
        let record = self.run.record_mut();
        record.status = progress.status;
        record.step = progress.step.to_string();
        record.intended = progress.intended;
        record.done = progress.done;
        if let Some(output) = progress.output {
            self.run.store_output(if progress.error.is_some() { FAILURE } else { &progress.step }, output);
        }
    }

    fn outcome(&mut self, failure: Option<Failure>) -> Outcome {
        let record = self.run.record().clone();
        // A worker that has taken over an undo knows its cause from the record only.
        let stored = || record.failure().filter(|_| failure.is_some()).map(UndoCause::from);
        let cause = self.undo_cause.take().or_else(stored);
        let failure = match (failure, cause) {
            // The caller needs the failure that started the undo. The failure of the undo is added to its text.
            (Some(undo), Some(UndoCause { step, cause, .. })) => {
                let parked = undo.state == FailureState::Parked;
                let cause = StillUndoing { cause, at: undo.step, undo: chain(&*undo.cause), parked };
                Some(Failure { retry_after: undo.retry_after, ..Failure::new(record.id, step, undo.state, cause) })
            }
            (None, Some(UndoCause { step, is_transient, cause })) if record.status == OperationStatus::Undone => {
                let retry_after = is_transient.then_some(RETRY_UNDONE);
                Some(Failure { retry_after, ..Failure::new(record.id, step, FailureState::Undone, cause) })
            }
            (failure, _) => failure,
        };
        Outcome { record, failure }
    }
}

/// The cause of a failure after `close()` has stopped the worker of the call.
const STOPPED: &str = "its worker was stopped, because this process closes tenantry";

/// The operation did not reach its pivot step in time.
#[derive(Debug, thiserror::Error)]
#[error("the operation took longer than its limit of {0:?}; call again, or set a longer Builder::deadline")]
struct DeadlineExceeded(Duration);

impl Stop {
    fn from(step: &'static str, error: StepError) -> Self {
        if error.is_fenced() { Self::Fenced } else { Self::Step(step, error) }
    }
}

/// The failure because of which an operation is being undone.
struct UndoCause {
    step: String,
    /// Whether the same step may succeed in a new operation.
    is_transient: bool,
    cause: BoxError,
}

impl From<FailureFacts> for UndoCause {
    fn from(facts: FailureFacts) -> Self {
        Self { step: facts.step, is_transient: facts.is_transient, cause: facts.cause.into() }
    }
}

/// The typed part of a failure, as the journal stores it.
fn failure_facts(step: &str, error: &StepError) -> Option<Value> {
    let store = std::error::Error::source(error).and_then(|e| e.downcast_ref::<StoreError>());
    let taken = match store {
        Some(StoreError::Taken(taken)) => Some(taken.clone()),
        _ => None,
    };
    let facts = FailureFacts { step: step.into(), taken, cause: error.cause_text(), is_transient: error.is_retry() };
    serde_json::to_value(facts).ok()
}

fn to_store_error(error: StepError) -> StoreError {
    let is_transient = error.is_retry();
    match error.into_cause().downcast::<StoreError>() {
        Ok(error) => *error,
        Err(other) if is_transient => StoreError::unavailable(other),
        Err(other) => StoreError::refused(other),
    }
}
