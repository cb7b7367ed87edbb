use crate::error::{StepError, StoreError};
use crate::operation::{FencingToken, OperationEvent, OperationId, Subject};
use crate::store::journal::{Journal, Record};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;

/// One worker's hold on an operation: what its steps may know and ask.
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
    /// The operation.
    pub fn operation(&self) -> OperationId {
        self.record.id
    }
    /// What it is about.
    pub fn subject(&self) -> &Subject {
        &self.record.subject
    }
    /// Under which epoch this worker writes.
    pub fn fencing_token(&self) -> FencingToken {
        self.record.fencing_token()
    }
    /// Whether no worker before this one can have left a session or an effect.
    pub fn is_first(&self) -> bool {
        self.fresh && self.record.epoch == 1
    }
    /// What the journal had when this worker took hold.
    pub fn record(&self) -> &Record {
        &self.record
    }
    /// The journal.
    pub fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }
    /// `Fenced` if a newer worker has taken over.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.journal.check(self.fencing_token()).await
    }
    /// The request.
    pub fn request<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        serde_json::from_value(self.record.request.clone()).map_err(StepError::fail)
    }
    /// What an earlier step answered; `None` if it has not run.
    pub fn output<T: DeserializeOwned>(&self, step: &str) -> Result<Option<T>, StepError> {
        let value = self.record.outputs.get(step).cloned();
        value.map(serde_json::from_value).transpose().map_err(StepError::fail)
    }
    pub(super) fn keep(&mut self, step: &str, output: Value) {
        self.record.outputs.insert(step.into(), output);
    }
    pub(super) fn record_mut(&mut self) -> &mut Record {
        &mut self.record
    }
}

impl std::fmt::Debug for Execution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run")
            .field("operation", &self.record.id)
            .field("epoch", &self.record.epoch)
            .finish_non_exhaustive()
    }
}

/// Sees the events of one worker as they are written: a progress bar.
#[derive(Clone, Default)]
pub struct Observer(Option<See>);
type See = Arc<dyn Fn(&OperationEvent) + Send + Sync>;
impl Observer {
    /// Calls `see` with each event, on the worker's own task: it must not block.
    pub fn new(see: impl Fn(&OperationEvent) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(see)))
    }
    /// Sees nothing.
    pub fn none() -> Self {
        Self(None)
    }
    pub(crate) fn see(&self, event: &OperationEvent) {
        if let Some(see) = &self.0 {
            see(event);
        }
    }
}
impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}
