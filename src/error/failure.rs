use super::BoxError;
use crate::operation::OperationId;
use std::{error::Error as StdError, fmt, time::Duration};

/// An operation that began and did not end well. Shared by every verb.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failure {
    /// Which operation: the one to name in a ticket.
    pub operation: OperationId,
    /// The step that failed.
    pub step: String,
    /// What it left behind.
    pub state: FailureState,
    /// `Some`: it is tried again by itself, not before this.
    pub retry_after: Option<Duration>,
    /// Why.
    pub cause: BoxError,
}
impl Failure {
    pub(crate) fn new(
        operation: OperationId, step: impl Into<String>, state: FailureState, cause: impl Into<BoxError>,
    ) -> Self {
        Self { operation, step: step.into(), state, retry_after: None, cause: cause.into() }
    }
}

/// What a failed operation left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureState {
    /// Nothing: all is undone, and the same call may be made again.
    Undone,
    /// Something, for now: recovery goes on removing it.
    Undoing,
    /// What it made stands: recovery goes on forward.
    Continuing,
    /// It waits for a fence to be lifted or for a person: `operations().resume(id)` or `undo(id)`.
    Parked,
}

impl fmt::Display for FailureState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Undone => "all is undone, it may be called again",
            Self::Undoing => "recovery goes on undoing it",
            Self::Continuing => "recovery goes on with it",
            Self::Parked => "it waits to be resumed or undone",
        })
    }
}
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation {} failed in step {}; {}", self.operation, self.step, self.state)
    }
}
impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.cause)
    }
}
