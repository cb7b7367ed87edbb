//! The error of one saga step, with the reaction that it asks the runner for: retry, fail or park.
//!
//! Steps return it, built-in ones as well as those of the application. The saga runner reacts to it.
use super::{BoxError, StoreError};
use crate::sqlstate;

/// The reason why a step failed, and how the runner reacts.
///
/// - `retry`: the runner repeats the step with backoff, up to the limit of attempts. After that it treats the error
///   like `fail` before the pivot step, and leaves the operation to recovery after it.
/// - `fail`: the runner undoes the operation before the pivot step, and parks it after that.
/// - `park`: the runner parks the operation until an administrator resumes, undoes or abandons it.
///
/// While an operation is being undone, recovery repeats an undo with backoff that failed with `retry`. An undo that fails
/// with `fail` is repeated up to the limit of attempts, and then the operation is parked; with `park` at once.
#[derive(Debug, thiserror::Error)]
#[error("{}", .reaction.text())]
pub struct StepError {
    reaction: Reaction,
    #[source]
    source: BoxError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaction {
    Retry,
    Fail,
    Park,
}
impl Reaction {
    fn retry_if(transient: bool) -> Self {
        if transient { Self::Retry } else { Self::Fail }
    }
    fn text(self) -> &'static str {
        match self {
            Self::Retry => "the step failed and may succeed later",
            Self::Fail => "the step failed, and a retry would fail too",
            Self::Park => "the step failed, and an administrator must decide how the operation continues",
        }
    }
}

impl StepError {
    /// An error after which the same step may succeed later.
    pub fn retry(cause: impl Into<BoxError>) -> Self {
        Self { reaction: Reaction::Retry, source: cause.into() }
    }
    /// An error after which a retry would fail too.
    pub fn fail(cause: impl Into<BoxError>) -> Self {
        Self { reaction: Reaction::Fail, source: cause.into() }
    }
    /// An error after which the engine must neither continue nor undo. The operation is parked and waits for
    /// [`resume`](crate::facade::Operations::resume), [`skip_step`](crate::facade::Operations::skip_step),
    /// [`abandon`](crate::facade::Operations::abandon) or, before the pivot step,
    /// [`undo`](crate::facade::Operations::undo).
    pub fn park(cause: impl Into<BoxError>) -> Self {
        Self { reaction: Reaction::Park, source: cause.into() }
    }
    /// Whether the same step may succeed later.
    pub fn is_retry(&self) -> bool {
        self.reaction == Reaction::Retry
    }
    /// Whether the operation must be parked for an administrator.
    pub fn is_park(&self) -> bool {
        self.reaction == Reaction::Park
    }
    /// The error that caused the failure, without the reaction.
    pub fn into_cause(self) -> BoxError {
        self.source
    }
    /// The text of the cause and of its own causes, without the text of `StepError` itself. For the journal and the
    /// log.
    pub(crate) fn cause_text(&self) -> String {
        std::error::Error::source(self).map(super::chain).unwrap_or_default()
    }
    /// Whether a newer worker has taken over. The engine then stops and undoes nothing.
    pub(crate) fn is_fenced(&self) -> bool {
        matches!(self.source.downcast_ref::<StoreError>(), Some(StoreError::Fenced))
    }
    /// Whether the landlord has crashed since this worker claimed the operation, so that its latest records may be
    /// lost.
    pub(crate) fn is_lost_writes(&self) -> bool {
        matches!(self.source.downcast_ref::<StoreError>(), Some(StoreError::LostWrites))
    }
}
/// Retries if the SQLSTATE, or the lack of one, says that the same statement may succeed later; fails otherwise.
impl From<sqlx::Error> for StepError {
    fn from(error: sqlx::Error) -> Self {
        Self { reaction: Reaction::retry_if(sqlstate::is_transient(&error)), source: error.into() }
    }
}
/// Retries if the error is [transient](StoreError::is_transient), fails otherwise.
impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self { reaction: Reaction::retry_if(error.is_transient()), source: error.into() }
    }
}
