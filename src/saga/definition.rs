//! The definition of a saga: its kind, its lane, its ordered steps and its pivot step.
//!
//! Each operation builds one [`Saga`] per process, as a list of steps that reads from top to bottom. Every worker of an
//! operation of that kind reads it.
//!
//! Invariants: kinds and step names are stored, so they never change. A saga has at most one pivot step; without one,
//! every failure undoes the operation.
use super::Execution;
use crate::error::StepError;
use crate::operation::Lane;
use async_trait::async_trait;
use serde_json::Value;

/// Makes the state of one worker, without any open session.
type NewContext<C> = dyn Fn(&Execution) -> Result<C, StepError> + Send + Sync;

/// An operation kind: an ordered list of steps that share one context of type `C`, the state that a worker keeps
/// between steps (mainly open sessions).
pub struct Saga<C> {
    kind: &'static str,
    lane: Lane,
    steps: Vec<Box<dyn SagaStep<C>>>,
    pivot: Option<&'static str>,
    final_record_is_repeatable: bool,
    new_context: Box<NewContext<C>>,
}

impl<C: Send + 'static> Saga<C> {
    /// Starts a definition without steps. The journal stores `kind`, and recovery finds the saga by it.
    ///
    /// `new_context` makes a worker's state. The engine calls it again after every error, because the state of the old
    /// sessions is then unknown. Its own error is recorded as the failure of a step with the name `takeover`, also if
    /// the worker is the first one of its operation.
    pub fn new(
        kind: &'static str, lane: Lane,
        new_context: impl Fn(&Execution) -> Result<C, StepError> + Send + Sync + 'static,
    ) -> Self {
        let new_context = Box::new(new_context);
        Self { kind, lane, steps: vec![], pivot: None, final_record_is_repeatable: false, new_context }
    }
    /// Adds the next step.
    pub fn step(mut self, step: impl SagaStep<C>) -> Self {
        self.steps.push(Box::new(step));
        self
    }
    /// Adds several steps, in this order.
    pub fn steps<S: SagaStep<C>>(self, steps: impl IntoIterator<Item = S>) -> Self {
        steps.into_iter().fold(self, Self::step)
    }
    /// Adds the pivot step. Once the intent of this step is committed, a failure no longer undoes the operation: the
    /// engine retries it or parks it.
    pub fn pivot(mut self, step: impl SagaStep<C>) -> Self {
        self.pivot = Some(step.name());
        self.step(step)
    }
    /// Declares that the final record may be committed asynchronously. Safe only if every result shown to the caller is
    /// already durable and the last step can be repeated.
    pub fn with_repeatable_end(mut self) -> Self {
        self.final_record_is_repeatable = true;
        self
    }

    /// The kind under which the journal stores operations of this saga.
    pub fn kind(&self) -> &'static str {
        self.kind
    }
    /// The lane that an operation of this saga occupies.
    pub fn lane(&self) -> Lane {
        self.lane
    }
    /// The names of the steps, in the order in which they run.
    pub fn step_names(&self) -> impl Iterator<Item = &'static str> {
        self.steps.iter().map(|step| step.name())
    }
    /// Whether an operation whose first `intended` steps may have begun can still be undone.
    pub fn can_undo(&self, intended: u32) -> bool {
        !self.step_names().take(intended as usize).any(|name| Some(name) == self.pivot)
    }

    pub(super) fn step_list(&self) -> &[Box<dyn SagaStep<C>>] {
        &self.steps
    }
    pub(super) fn final_record_is_repeatable(&self) -> bool {
        self.final_record_is_repeatable
    }
    pub(super) fn new_context(&self, run: &Execution) -> Result<C, StepError> {
        (self.new_context)(run)
    }
    /// The number of steps up to and including the last one that shares the intent of step `at`.
    pub(super) fn intent_group_end(&self, at: usize) -> u32 {
        let more = self.steps.iter().skip(at + 1).take_while(|step| step.shares_intent_with_previous()).count();
        (at + 1 + more) as u32
    }
}

impl<C> std::fmt::Debug for Saga<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Saga").field("kind", &self.kind).field("pivot", &self.pivot).finish_non_exhaustive()
    }
}

/// One step of a saga. The futures of `run` and `undo` may be dropped at any await point, and both may be called again,
/// on this node or on another one.
#[async_trait]
pub trait SagaStep<C: Send>: Send + Sync + 'static {
    /// The name under which the journal stores the step. It must never change and must be unique within the saga.
    fn name(&self) -> &'static str;
    /// Whether the intent of the previous step also covers this step, so that the engine commits nothing between them.
    fn shares_intent_with_previous(&self) -> bool;
    /// Whether the step writes to the landlord's own tables only. A crashed landlord loses its latest commits first, so
    /// the effect of such a step cannot survive without its intent. The engine then does not wait until the intent is
    /// flushed to disk.
    fn landlord_only(&self) -> bool {
        false
    }
    /// Whether an administrator may let the operation continue without this step, or without its undo. False for a step
    /// on which a later step, or the tenant's isolation, relies.
    fn is_skippable(&self) -> bool {
        false
    }
    /// Performs the step, or confirms that it has already been performed. The journal stores the returned value, so it
    /// must not contain a secret.
    async fn run(&self, run: &Execution, context: &mut C) -> Result<Value, StepError>;
    /// Ensures that no effect of the step exists. `run` may not have begun, may have failed, may have succeeded, or its
    /// outcome may be unknown. The default fails. A step after the pivot step can keep it, because the engine never
    /// starts an undo from there.
    async fn undo(&self, _: &Execution, _: &mut C) -> Result<(), StepError> {
        Err(StepError::fail(format!("step {} cannot be undone", self.name())))
    }
}
