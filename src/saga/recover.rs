//! Going on with what dead workers left, from any node.
use super::{Engine, Observer, Outcome, Saga};
use crate::error::StoreError;
use crate::operation::{OperationId, OperationStatus};
use crate::store::journal::{Claim, Record};
use async_trait::async_trait;
use futures_util::stream::{self, StreamExt};
use std::sync::Arc;
use uuid::Uuid;

/// A saga whose world nobody needs to name.
#[async_trait]
pub trait AnySaga: Send + Sync + 'static {
    /// The stored name.
    fn kind(&self) -> &'static str;
    /// Whether an operation in this state can still be undone.
    fn can_undo(&self, record: &Record) -> bool;
    /// As [`Engine::drive`].
    async fn drive(
        &self, engine: &Engine, held: Record, fresh: bool, observe: &Observer,
    ) -> Result<Outcome, StoreError>;
}

#[async_trait]
impl<S: Saga> AnySaga for S {
    fn kind(&self) -> &'static str {
        Saga::kind(self)
    }
    fn can_undo(&self, record: &Record) -> bool {
        record.intended as usize <= self.pivot_index()
    }
    async fn drive(
        &self, engine: &Engine, held: Record, fresh: bool, observe: &Observer,
    ) -> Result<Outcome, StoreError> {
        engine.drive(self, held, fresh, observe).await
    }
}

/// What one pass of recovery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Operations brought to their intended end.
    pub finished: u32,
    /// Operations undone.
    pub undone: u32,
    /// Operations that wait, failed again, or belong to a newer version of the program.
    pub left: u32,
}

/// Knows every saga by its stored name.
#[derive(Clone)]
pub struct Recoverer {
    engine: Engine,
    sagas: Arc<[Arc<dyn AnySaga>]>,
    workers: usize,
}

impl Recoverer {
    /// Over these sagas, one operation after the other; an operation of another kind is left alone.
    pub fn new(engine: Engine, sagas: Vec<Arc<dyn AnySaga>>) -> Self {
        Self { engine, sagas: sagas.into(), workers: 1 }
    }
    /// The same for so many operations at once, at least one.
    pub fn with_workers(self, workers: usize) -> Self {
        Self { workers: workers.max(1), ..self }
    }
    /// The saga of this stored name.
    pub fn saga(&self, kind: &str) -> Option<&Arc<dyn AnySaga>> {
        self.sagas.iter().find(|s| s.kind() == kind)
    }
    /// One pass over what may be taken over now, a hundred operations at most. Any number of nodes may do this at once:
    /// an operation is one worker's. Dropping the future is like the death of the worker.
    ///
    /// # Errors
    /// The first one, when all that was begun has ended: a landlord that does not answer.
    pub async fn pass(&self) -> Result<RecoveryReport, StoreError> {
        let mut report = RecoveryReport::default();
        let due = self.engine.journal().due(100).await?;
        let mut ended = stream::iter(due).map(|id| self.resume(id)).buffer_unordered(self.workers);
        let mut failed = Ok(());
        while let Some(outcome) = ended.next().await {
            match outcome {
                Ok(Some(outcome)) if outcome.record.status == OperationStatus::Done => report.finished += 1,
                Ok(Some(outcome)) if outcome.record.status == OperationStatus::Undone => report.undone += 1,
                Ok(_) => report.left += 1,
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed.map(|()| report)
    }
    /// Goes on with one operation, if it may be taken over; `None` if not, or if its kind is unknown here.
    pub async fn resume(&self, id: OperationId) -> Result<Option<Outcome>, StoreError> {
        let Some(record) = self.engine.journal().read(id).await? else { return Ok(None) };
        let Some(saga) = self.saga(&record.kind) else { return Ok(None) };
        let worker = Uuid::now_v7().to_string();
        match self.engine.journal().claim(id, &worker, self.engine.settings().lease).await? {
            Claim::Taken(record) => Ok(Some(saga.drive(&self.engine, *record, false, &Observer::none()).await?)),
            Claim::Held(_) | Claim::Over(_) => Ok(None),
        }
    }
}
