use super::{BoxError, StoreError};
use crate::sqlstate;

/// Why a step did not succeed. `retry`: again with backoff, up to the saga's limit. `fail`: undo (before the point of
/// no return) or park (after it).
#[derive(Debug, thiserror::Error)]
#[error("{}", if *.retry { "it may succeed later" } else { "it will not succeed by itself" })]
pub struct StepError {
    retry: bool,
    #[source]
    source: BoxError,
}
impl StepError {
    /// It may succeed later.
    pub fn retry(cause: impl Into<BoxError>) -> Self {
        Self { retry: true, source: cause.into() }
    }
    /// It will not succeed by itself.
    pub fn fail(cause: impl Into<BoxError>) -> Self {
        Self { retry: false, source: cause.into() }
    }
    /// Whether it may succeed later.
    pub fn is_retry(&self) -> bool {
        self.retry
    }
    /// The cause alone.
    pub fn into_cause(self) -> BoxError {
        self.source
    }
    /// Whether a newer worker has taken over: the engine then stops and undoes nothing.
    pub(crate) fn is_fenced(&self) -> bool {
        matches!(self.source.downcast_ref::<StoreError>(), Some(StoreError::Fenced))
    }
}
/// By SQLSTATE, as [`sqlstate::is_transient`] says.
impl From<sqlx::Error> for StepError {
    fn from(error: sqlx::Error) -> Self {
        Self { retry: sqlstate::is_transient(&error), source: error.into() }
    }
}
impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self { retry: matches!(error, StoreError::Unavailable(_)), source: error.into() }
    }
}
