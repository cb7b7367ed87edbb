use super::{BoxError, StoreError};
use crate::sqlstate;

/// Why a step did not succeed. `retry`: again with backoff, up to the saga's limit. `fail`: undo (before the point of
/// no return) or park (after it). `park`: wait for a person, wherever the operation stands.
#[derive(Debug, thiserror::Error)]
#[error("{}", .then.text())]
pub struct StepError {
    then: Then,
    #[source]
    source: BoxError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Retry,
    Fail,
    Park,
}
impl Then {
    fn retry_if(transient: bool) -> Self {
        if transient { Self::Retry } else { Self::Fail }
    }
    fn text(self) -> &'static str {
        match self {
            Self::Retry => "it may succeed later",
            Self::Fail => "it will not succeed by itself",
            Self::Park => "a person must look at it",
        }
    }
}

impl StepError {
    /// It may succeed later.
    pub fn retry(cause: impl Into<BoxError>) -> Self {
        Self { then: Then::Retry, source: cause.into() }
    }
    /// It will not succeed by itself.
    pub fn fail(cause: impl Into<BoxError>) -> Self {
        Self { then: Then::Fail, source: cause.into() }
    }
    /// Neither going on nor going back would be right: the operation is parked, and waits for
    /// [`resume`](crate::facade::Operations::resume) or [`undo`](crate::facade::Operations::undo).
    pub fn park(cause: impl Into<BoxError>) -> Self {
        Self { then: Then::Park, source: cause.into() }
    }
    /// Whether it may succeed later.
    pub fn is_retry(&self) -> bool {
        self.then == Then::Retry
    }
    /// Whether a person must look at it.
    pub fn is_park(&self) -> bool {
        self.then == Then::Park
    }
    /// The cause alone.
    pub fn into_cause(self) -> BoxError {
        self.source
    }
    /// Whether a newer worker has taken over: the engine then stops and undoes nothing.
    pub(crate) fn is_fenced(&self) -> bool {
        matches!(self.source.downcast_ref::<StoreError>(), Some(StoreError::Fenced))
    }
    /// Whether the journal may have lost what this worker takes for true.
    pub(crate) fn is_lost_writes(&self) -> bool {
        matches!(self.source.downcast_ref::<StoreError>(), Some(StoreError::LostWrites))
    }
}
/// By SQLSTATE, as [`sqlstate::is_transient`] says.
impl From<sqlx::Error> for StepError {
    fn from(error: sqlx::Error) -> Self {
        Self { then: Then::retry_if(sqlstate::is_transient(&error)), source: error.into() }
    }
}
impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self {
            then: Then::retry_if(matches!(error, StoreError::Unavailable(_) | StoreError::LostWrites)),
            source: error.into(),
        }
    }
}
