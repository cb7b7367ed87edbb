//! Continues the operations that crashed workers left, from any node.
//!
//! A background loop calls [`Recoverer::recover_due`]; an administrator's request calls [`Recoverer::resume`]. Both
//! claim an operation in the journal first, so two nodes never drive the same operation at the same time.
use super::{Engine, Execution, Observer, Outcome, Saga, runner};
use crate::error::{StoreError, chain};
use crate::operation::{OperationId, OperationStatus};
use crate::store::journal::{Claim, Record};
use async_trait::async_trait;
use futures_util::stream::{self, StreamExt};
use std::sync::Arc;

/// A [`Saga`] as a trait object: it hides the type of the context.
#[async_trait]
pub trait AnySaga: Send + Sync + 'static {
    /// The kind under which the journal stores operations of this saga.
    fn kind(&self) -> &'static str;
    /// Whether an operation with this record can still be undone, that is, the intent of the pivot step is not
    /// committed.
    fn can_undo(&self, record: &Record) -> bool;
    /// The names of the steps, in the order in which they run.
    fn step_names(&self) -> Vec<&'static str>;
    /// Whether an administrator may skip the step of this name: see [`SagaStep::is_skippable`](super::SagaStep).
    fn is_skippable(&self, step: &str) -> bool;
    /// Drives an operation that the caller has claimed: as [`NewOperation::drive`](super::NewOperation::drive).
    async fn drive(&self, engine: &Engine, claimed: Record, observer: &Observer) -> Result<Outcome, StoreError>;
}

#[async_trait]
impl<C: Send + 'static> AnySaga for Saga<C> {
    fn kind(&self) -> &'static str {
        Saga::kind(self)
    }
    fn can_undo(&self, record: &Record) -> bool {
        Saga::can_undo(self, record.intended)
    }
    fn step_names(&self) -> Vec<&'static str> {
        Saga::step_names(self).collect()
    }
    fn is_skippable(&self, step: &str) -> bool {
        self.step_list().iter().any(|s| s.name() == step && s.is_skippable())
    }
    async fn drive(&self, engine: &Engine, claimed: Record, observer: &Observer) -> Result<Outcome, StoreError> {
        let run = Execution::new(engine.journal().clone(), claimed, false);
        runner::drive(engine, self, run, None, observer).await
    }
}

/// Counts of what one pass of recovery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Operations that recovery completed.
    pub finished: u32,
    /// Operations that recovery undid.
    pub undone: u32,
    /// Operations that are still open: they wait, failed again, are driven by another worker, or have a kind that this
    /// version of the program does not know.
    pub left: u32,
    /// Operations whose row cannot be parsed. They stay as they are; `operations().open()` lists them, and the log has
    /// the reason.
    pub unreadable: u32,
}

/// Finds the saga of an operation by its kind and continues the operation.
#[derive(Clone)]
pub struct Recoverer {
    engine: Engine,
    sagas: Arc<[Arc<dyn AnySaga>]>,
    workers: usize,
}

impl Recoverer {
    /// A recoverer for these sagas that drives one operation at a time. It does not touch operations of other kinds.
    pub fn new(engine: Engine, sagas: Vec<Arc<dyn AnySaga>>) -> Self {
        Self { engine, sagas: sagas.into(), workers: 1 }
    }
    /// Sets how many operations a pass drives concurrently. Zero counts as one.
    pub fn with_workers(self, workers: usize) -> Self {
        Self { workers: workers.max(1), ..self }
    }
    /// The saga of this kind, if this recoverer has it.
    pub fn saga(&self, kind: &str) -> Option<&Arc<dyn AnySaga>> {
        self.sagas.iter().find(|s| s.kind() == kind)
    }
    /// Makes one pass over the operations that can be taken over now, at most 100. Any number of nodes may call this
    /// concurrently, because each operation is claimed by one worker. Dropping the future has the same effect as a
    /// crash of the worker: another pass continues after the leases expire.
    ///
    /// # Errors
    /// Fails if the landlord does not answer. The pass finishes its work on all other operations, then returns the
    /// first error.
    pub async fn recover_due(&self) -> Result<RecoveryReport, StoreError> {
        let mut report = RecoveryReport::default();
        let due = self.engine.journal().due(100).await?;
        let resumed = stream::iter(due).map(|id| async move { (id, self.resume(id).await) });
        let mut outcomes = resumed.buffer_unordered(self.workers);
        let mut result = Ok(());
        while let Some((operation, outcome)) = outcomes.next().await {
            match outcome {
                Ok(Some(outcome)) if outcome.record.status == OperationStatus::Done => report.finished += 1,
                Ok(Some(outcome)) if outcome.record.status == OperationStatus::Undone => report.undone += 1,
                Ok(_) => report.left += 1,
                Err(error @ StoreError::Corrupt(_)) => {
                    report.unreadable += 1;
                    tracing::warn!(%operation, error = %chain(&error), "recovery leaves an operation out");
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        result.map(|()| report)
    }
    /// Claims one operation and drives it. `None` if it cannot be claimed now, or if this recoverer does not have its
    /// saga.
    pub async fn resume(&self, id: OperationId) -> Result<Option<Outcome>, StoreError> {
        let Some(record) = self.engine.journal().read(id).await? else { return Ok(None) };
        let Some(saga) = self.saga(&record.kind) else { return Ok(None) };
        let worker = Engine::new_worker();
        match self.engine.journal().claim(id, &worker, self.engine.settings().lease).await? {
            Claim::Taken(record) => Ok(Some(saga.drive(&self.engine, *record, &Observer::none()).await?)),
            Claim::Held(_) | Claim::Over(_) => Ok(None),
        }
    }
}
