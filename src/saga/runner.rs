//! One worker's way through a saga.
use super::{Engine, Execution, Observer, Outcome, Saga};
use crate::error::{BoxError, Failure, FailureState, StepError, StoreError, chain};
use crate::operation::OperationStatus;
use crate::store::journal::{Claim, FAILURE, FailureFacts, Progress, StillUndoing};
use futures_util::future::join;
use serde_json::Value;
use std::{future::Future, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};

/// Walks until the operation ends, waits, or is taken over.
pub(super) async fn runner<S: Saga>(
    engine: &Engine, saga: &S, run: Execution, observe: &Observer,
) -> Result<Outcome, StoreError> {
    let until = deadline(engine, &run).await;
    let told = run.record().done;
    let mut runner = Runner { engine, saga, run, observe, failed: None, until, told };
    let mut attempt = 0;
    loop {
        let before = runner.mark();
        let (step, error) = match runner.once().await {
            Ok(()) => return Ok(runner.outcome(None)),
            Err(Stop::Fenced) => return runner.overtaken().await,
            Err(Stop::Asked) => return runner.let_go().await,
            Err(Stop::Step(step, error)) => (step, error),
        };
        attempt = if runner.mark() == before { attempt + 1 } else { 1 };
        if let Some(outcome) = runner.failed(step, error, &mut attempt).await? {
            return Ok(outcome);
        }
    }
}

/// Why a walk ended early.
enum Stop {
    /// `close()`: at a step boundary.
    Asked,
    /// A newer worker has taken over.
    Fenced,
    /// A step failed.
    Step(&'static str, StepError),
}

struct Runner<'a, S: Saga> {
    engine: &'a Engine,
    saga: &'a S,
    run: Execution,
    observe: &'a Observer,
    /// The failure that turned the walk around.
    failed: Option<(String, BoxError)>,
    /// When an operation that can still be undone is undone.
    until: Instant,
    /// The steps that the journal knows to be done: the record may be one ahead of it.
    told: u32,
}

/// By the landlord's clock, whichever node began it. A landlord that does not answer now will be asked for more.
async fn deadline(engine: &Engine, run: &Execution) -> Instant {
    let age = match run.is_first() {
        true => Ok(Duration::ZERO),
        false => engine.journal.now().await.map(|now| (now - run.record().begun_at).try_into().unwrap_or_default()),
    };
    Instant::now() + engine.settings.deadline.saturating_sub(age.unwrap_or_default())
}

impl<S: Saga> Runner<'_, S> {
    /// One hold of the operation: from where the journal stands until the end or the first error.
    async fn once(&mut self) -> Result<(), Stop> {
        let step = |error| Stop::from("takeover", error);
        self.engine.fence(self.run.record()).await.map_err(step)?;
        let mut context = self.saga.context(&self.run).map_err(step)?;
        if self.run.record().status == OperationStatus::Undoing {
            self.backward(&mut context).await
        } else {
            self.forward(&mut context).await
        }
    }

    async fn forward(&mut self, context: &mut S::Context) -> Result<(), Stop> {
        let steps = self.saga.steps();
        // What has happened and needs not be known before the next step begins: it is written while that one runs. A
        // crash in between only makes a step run again that is idempotent and whose intent stands.
        let mut late = None;
        for (at, step) in steps.iter().enumerate().skip(self.run.record().done as usize) {
            let name = step.name();
            if self.engine.stop.is_cancelled() {
                self.tell_late(late.as_ref()).await?;
                return Err(Stop::Asked);
            }
            if self.run.record().intended as usize <= at {
                let intended = covered(self.saga, at);
                self.note(Progress { intended, durable: true, ..self.progress(name) })
                    .await
                    .map_err(|e| Stop::from(name, e))?;
            }
            tracing::debug!(operation = %self.run.operation(), step = name, "step begins");
            let running = self.engine.guarded(&self.run, step.run(&self.run, context));
            let (ran, told) = join(self.in_time(running), self.tell_late(late.as_ref())).await;
            told?;
            self.told = late.map_or(self.told, |progress| progress.done);
            let output = ran.map_err(|e| Stop::from(name, e))?;
            late = self.has_run(at, name, output).await.map_err(|e| Stop::from(name, e))?;
        }
        Ok(())
    }

    async fn in_time<T>(&self, step: impl Future<Output = Result<T, StepError>>) -> Result<T, StepError> {
        if self.run.record().intended as usize > self.saga.pivot_index() {
            return step.await;
        }
        match timeout_at(self.until, step).await {
            Ok(ran) => ran,
            Err(_) => Err(StepError::fail(Late(self.engine.settings.deadline))),
        }
    }

    /// Writes that a step has run, if somebody must know before the walk goes on; or returns what is to be written.
    async fn has_run(&mut self, at: usize, name: &'static str, output: Value) -> Result<Option<Progress>, StepError> {
        let mut progress = Progress { done: at as u32 + 1, output: Some(output), ..self.progress(name) };
        if at + 1 == self.saga.steps().len() {
            let durable = !(self.saga.final_record_is_repeatable() && self.engine.is_one_database());
            progress = Progress { status: OperationStatus::Done, lease: None, durable, ..progress };
        } else if self.run.record().intended as usize == at + 1 {
            // The next step's intent rides on this commit.
            let durable = !self.landlord_only(at + 1);
            progress = Progress { intended: covered(self.saga, at + 1), durable, ..progress };
        } else {
            self.keep(&progress);
            return Ok(Some(progress));
        }
        self.note(progress).await.map(|()| None)
    }

    /// Whether all that the group at `at` does is lost with its intent, or not at all.
    fn landlord_only(&self, at: usize) -> bool {
        let group = &self.saga.steps()[at..covered(self.saga, at) as usize];
        self.engine.is_one_database() && group.iter().all(|step| step.landlord_only())
    }

    async fn tell_late(&self, late: Option<&Progress>) -> Result<(), Stop> {
        match late {
            Some(progress) => self.tell(progress).await.map_err(|e| Stop::from("journal", e)),
            None => Ok(()),
        }
    }

    async fn backward(&mut self, context: &mut S::Context) -> Result<(), Stop> {
        let steps = self.saga.steps();
        let from = (self.run.record().intended as usize).min(steps.len());
        for at in (0..from).rev() {
            let (step, name) = (&steps[at], steps[at].name());
            if self.engine.stop.is_cancelled() {
                return Err(Stop::Asked);
            }
            tracing::debug!(operation = %self.run.operation(), step = name, "undo begins");
            let undone = self.engine.guarded(&self.run, step.undo(&self.run, context)).await;
            undone.map_err(|e| Stop::from(name, e))?;
            let at = at as u32;
            let mut progress = Progress { intended: at, done: at.min(self.run.record().done), ..self.progress(name) };
            if at == 0 {
                progress = Progress { status: OperationStatus::Undone, lease: None, durable: true, ..progress };
            }
            self.note(progress).await.map_err(|e| Stop::from(name, e))?;
        }
        Ok(())
    }

    /// Decides what a failed step means. `None`: the walk goes on, under a new epoch.
    async fn failed(
        &mut self, step: &'static str, error: StepError, attempt: &mut u32,
    ) -> Result<Option<Outcome>, StoreError> {
        let settings = self.engine.settings;
        tracing::warn!(operation = %self.run.operation(), step, attempt, error = %cause(&error), "step failed");
        if error.is_retry() && *attempt < settings.attempts && Instant::now() < self.until {
            sleep(settings.wait(*attempt)).await;
        } else {
            if let Some(outcome) = self.give_up(step, error, *attempt).await? {
                return Ok(Some(outcome));
            }
            *attempt = 0;
        }
        self.again().await
    }

    /// Takes hold anew: whatever the last try left in flight, on whichever session, counts as another worker's.
    async fn again(&mut self) -> Result<Option<Outcome>, StoreError> {
        let settings = self.engine.settings;
        let worker = self.run.record().worker.clone();
        let mut attempt = 0;
        let claim = loop {
            attempt += 1;
            match self.engine.journal.claim(self.run.operation(), &worker, settings.lease).await {
                Err(StoreError::Unavailable(_)) if attempt < settings.attempts => sleep(settings.wait(attempt)).await,
                claim => break claim?,
            }
        };
        let (mine, record) = match claim {
            Claim::Taken(record) => (true, record),
            Claim::Held(record) | Claim::Over(record) => (false, record),
        };
        self.told = record.done;
        self.run = Execution::new(self.engine.journal.clone(), *record, false);
        Ok(if mine { None } else { Some(self.outcome(None)) })
    }

    /// What a try has achieved: nothing that the journal has not heard of, which the next one has to repeat.
    fn mark(&self) -> (OperationStatus, u32, u32) {
        let record = self.run.record();
        (record.status, record.intended, self.told)
    }

    /// `Some`: the operation is left as it is. `None`: it turns around, and what it made is removed.
    async fn give_up(
        &mut self, step: &'static str, error: StepError, attempt: u32,
    ) -> Result<Option<Outcome>, StoreError> {
        let wait = Some(self.engine.settings.wait(self.run.record().attempts.max(attempt)));
        // A step that the journal has not heard of runs again: what it returned is not written either.
        let base = Progress { error: Some(cause(&error)), durable: true, done: self.told, ..self.progress(step) };
        let (progress, after) = if self.run.record().status == OperationStatus::Undoing {
            (Progress { lease: None, retry_after: wait, ..base }, FailureState::Undoing)
        } else if error.is_park() {
            (Progress { status: OperationStatus::Parked, lease: None, ..base }, FailureState::Parked)
        } else if self.run.record().intended as usize <= self.saga.pivot_index() {
            (Progress { status: OperationStatus::Undoing, output: facts(step, &error), ..base }, FailureState::Undone)
        } else if error.is_retry() {
            (Progress { lease: None, retry_after: wait, ..base }, FailureState::Continuing)
        } else {
            (Progress { status: OperationStatus::Parked, lease: None, ..base }, FailureState::Parked)
        };
        let retry_after = progress.retry_after;
        match self.note(progress).await {
            Err(e) if e.is_fenced() => return Ok(Some(self.outcome(None))),
            // The step may have failed for that alone: it is taken up again from where the landlord stands.
            Err(e) if e.is_lost_writes() => return Ok(None),
            noted => noted.map_err(store_error)?,
        }
        if after == FailureState::Undone {
            self.failed = Some((step.into(), error.into_cause()));
            return Ok(None);
        }
        let failure = Failure { retry_after, ..Failure::new(self.run.operation(), step, after, error.into_cause()) };
        Ok(Some(self.outcome(Some(failure))))
    }

    /// Somebody else has it, or has stopped it: what became of it stands in the journal.
    async fn overtaken(mut self) -> Result<Outcome, StoreError> {
        if let Some(record) = self.engine.journal.read(self.run.operation()).await? {
            *self.run.record_mut() = record;
        }
        Ok(self.outcome(None))
    }

    async fn let_go(mut self) -> Result<Outcome, StoreError> {
        match self.note(Progress::of(self.run.record())).await {
            Err(e) if !e.is_fenced() && !e.is_lost_writes() => Err(store_error(e)),
            _ => Ok(self.outcome(None)),
        }
    }

    fn progress(&self, step: &'static str) -> Progress {
        let lease = Some(self.engine.settings.lease);
        Progress { step: step.into(), lease, ..Progress::of(self.run.record()) }
    }

    async fn note(&mut self, progress: Progress) -> Result<(), StepError> {
        self.tell(&progress).await?;
        self.told = progress.done;
        self.keep(&progress);
        Ok(())
    }

    async fn tell(&self, progress: &Progress) -> Result<(), StepError> {
        let event = self.engine.journal.record(self.run.fencing_token(), progress).await?;
        tracing::info!(operation = %event.operation, step = %event.step, done = event.done, total = event.total,
            status = %event.status, "operation");
        self.observe.see(&event);
        Ok(())
    }

    /// From now on this worker takes it for true.
    fn keep(&mut self, progress: &Progress) {
        let record = self.run.record_mut();
        record.status = progress.status;
        record.step = progress.step.to_string();
        record.intended = progress.intended;
        record.done = progress.done;
        if let Some(output) = &progress.output {
            self.run.keep(if progress.error.is_some() { FAILURE } else { &progress.step }, output.clone());
        }
    }

    fn outcome(&mut self, failure: Option<Failure>) -> Outcome {
        let record = self.run.record().clone();
        let failure = match (failure, self.failed.take()) {
            // What turned it around is what the caller asked about; what keeps it from being undone is told beside it.
            (Some(undo), Some((step, cause))) => {
                let cause = StillUndoing { cause, at: undo.step, undo: chain(&*undo.cause) };
                Some(Failure { retry_after: undo.retry_after, ..Failure::new(record.id, step, undo.state, cause) })
            }
            (None, Some((step, cause))) if record.status == OperationStatus::Undone => {
                Some(Failure::new(record.id, step, FailureState::Undone, cause))
            }
            (failure, _) => failure,
        };
        Outcome { record, failure }
    }
}

/// It took too long.
#[derive(Debug, thiserror::Error)]
#[error("the operation's deadline of {0:?} is over")]
struct Late(Duration);

impl Stop {
    fn from(step: &'static str, error: StepError) -> Self {
        if error.is_fenced() { Self::Fenced } else { Self::Step(step, error) }
    }
}

/// Steps up to the end of the group that `at` begins.
pub(super) fn covered<S: Saga>(saga: &S, at: usize) -> u32 {
    let more = saga.steps().iter().skip(at + 1).take_while(|s| s.shares_intent_with_previous()).count();
    (at + 1 + more) as u32
}

fn cause(error: &StepError) -> String {
    std::error::Error::source(error).map(chain).unwrap_or_default()
}

fn facts(step: &str, error: &StepError) -> Option<Value> {
    let store = std::error::Error::source(error).and_then(|e| e.downcast_ref::<StoreError>());
    let taken = match store {
        Some(StoreError::Taken(taken)) => Some(taken.clone()),
        _ => None,
    };
    serde_json::to_value(FailureFacts { step: step.into(), taken, cause: cause(error) }).ok()
}

fn store_error(error: StepError) -> StoreError {
    match error.into_cause().downcast::<StoreError>() {
        Ok(error) => *error,
        Err(other) => StoreError::unavailable(other),
    }
}
