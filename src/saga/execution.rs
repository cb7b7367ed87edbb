//! What a worker passes to the steps of a saga: the operation's record, its fencing token and the outputs of earlier
//! steps; and the observer that receives the worker's events.
//!
//! The runner creates a new [`Execution`] each time it claims the operation, so its epoch is the one of that claim. A
//! step reads through it and never changes the journal's record itself.
use crate::error::{StepError, StoreError};
use crate::operation::{FencingToken, OperationEvent, OperationId, Subject};
use crate::store::journal::{Journal, Record};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;

/// One worker's claim on an operation, as its steps see it.
#[derive(Clone)]
pub struct Execution {
    journal: Arc<dyn Journal>,
    record: Record,
    fresh: bool,
}

impl Execution {
    pub(super) fn new(journal: Arc<dyn Journal>, record: Record, fresh: bool) -> Self {
        Self { journal, record, fresh }
    }
    /// Id of the operation.
    pub fn operation(&self) -> OperationId {
        self.record.id
    }
    /// The tenant, server or other object that the operation changes.
    pub fn subject(&self) -> &Subject {
        &self.record.subject
    }
    /// The operation and the epoch under which this worker writes.
    pub fn fencing_token(&self) -> FencingToken {
        self.record.fencing_token()
    }
    /// Whether this is the first worker of the operation, so that no earlier one can have left a session or an effect.
    pub fn is_first(&self) -> bool {
        self.fresh && self.record.epoch == 1
    }
    /// The journal's record at the time of the claim, with the progress that this worker has made since.
    pub fn record(&self) -> &Record {
        &self.record
    }
    /// The journal that stores the operation.
    pub fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }
    /// Lets a parked operation continue in the direction that it had: forward, or backward if it was being undone.
    ///
    /// # Errors
    /// `Conflict` if it is not parked.
    pub async fn continue_parked(&self, parked: &Record) -> Result<(), StoreError> {
        match parked.is_backward() {
            true => self.journal.undo_parked(parked.id).await.map(drop),
            false => self.journal.resume_parked(parked.id).await.map(drop),
        }
    }
    /// Asks the journal whether this worker's epoch is still the newest one.
    ///
    /// # Errors
    /// `Fenced` if a newer worker has taken over.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.journal.check(self.fencing_token()).await
    }
    /// The request of the caller that began the operation. Fails if it is not a valid `T`.
    pub fn request<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        serde_json::from_value(self.record.request.clone()).map_err(StepError::fail)
    }
    /// The value that an earlier step returned; `None` if that step has not completed. Fails if it is not a valid `T`.
    pub fn output<T: DeserializeOwned>(&self, step: &str) -> Result<Option<T>, StepError> {
        let value = self.record.outputs.get(step).cloned();
        value.map(serde_json::from_value).transpose().map_err(StepError::fail)
    }
    pub(super) fn store_output(&mut self, step: &str, output: Value) {
        self.record.outputs.insert(step.into(), output);
    }
    pub(super) fn record_mut(&mut self) -> &mut Record {
        &mut self.record
    }
}

impl std::fmt::Debug for Execution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Execution")
            .field("operation", &self.record.id)
            .field("epoch", &self.record.epoch)
            .finish_non_exhaustive()
    }
}

/// A callback that receives the events of one worker as it writes them, for example to draw a progress bar.
#[derive(Clone, Default)]
pub struct Observer(Option<Callback>);
type Callback = Arc<dyn Fn(&OperationEvent) + Send + Sync>;
impl Observer {
    /// Calls `callback` with each event. The call happens on the worker's task, so it must not block.
    pub fn new(callback: impl Fn(&OperationEvent) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(callback)))
    }
    /// An observer without a callback.
    pub fn none() -> Self {
        Self(None)
    }
    pub(crate) fn notify(&self, event: &OperationEvent) {
        if let Some(callback) = &self.0 {
            callback(event);
        }
    }
}
impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}
