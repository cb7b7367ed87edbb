//! The failure of an operation that had begun: the step, the cause, and the state that the operation is in.
//!
//! The error of each kind of operation contains it in its variant `Failed`.
use super::BoxError;
use crate::operation::OperationId;
use std::{error::Error as StdError, fmt, time::Duration};

/// An operation that began and failed. The errors of all operations share this type.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failure {
    /// Id of the operation. Quote it when you report the failure.
    pub operation: OperationId,
    /// Name of the step that failed.
    pub step: String,
    /// The state in which the failure left the operation.
    pub state: FailureState,
    /// How long to wait before the same call may succeed: until recovery continues the operation or, if the operation is
    /// undone, because the cause was temporary. `None` if something must be changed first.
    pub retry_after: Option<Duration>,
    /// The error of the step.
    pub cause: BoxError,
}
impl Failure {
    pub(crate) fn new(
        operation: OperationId, step: impl Into<String>, state: FailureState, cause: impl Into<BoxError>,
    ) -> Self {
        Self { operation, step: step.into(), state, retry_after: None, cause: cause.into() }
    }
}

/// The state in which a failure left an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureState {
    /// The operation is undone and left nothing behind. The same call may be made again: after
    /// [`Failure::retry_after`], or once the cause is removed if that is `None`.
    Undone,
    /// The operation is partly undone. Recovery continues the undo.
    Undoing,
    /// The operation has passed its pivot step. Recovery continues it forward.
    Continuing,
    /// The operation waits until a later operation resumes it, or until an administrator calls `operations().resume(id)`
    /// or `operations().abandon(id, reason)`. It has passed its pivot step, or its undo has failed.
    Parked,
    /// As [`Parked`](Self::Parked), but the operation has not passed its pivot step, so `operations().undo(id)` works
    /// too.
    ParkedBeforePivot,
    /// An administrator or a purge has ended the operation without undoing it. Parts of what it has made may remain.
    Abandoned,
}

impl fmt::Display for FailureState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Undone => "it is undone and left nothing",
            Self::Undoing => "recovery continues to undo it",
            Self::Continuing => "recovery continues it",
            Self::Parked => "it is parked until operations().resume(id) or operations().abandon(id, reason) is called",
            Self::ParkedBeforePivot => {
                "it is parked until operations().resume(id), undo(id) or abandon(id, reason) is called"
            }
            Self::Abandoned => "it was abandoned, and parts of what it has made may remain",
        })
    }
}
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = match (self.state, self.retry_after) {
            (FailureState::Undone, Some(_)) => "; the same call may be made again",
            (FailureState::Undone, None) => "; once the cause is removed, the same call may be made again",
            _ => "",
        };
        write!(f, "operation {} failed in step {}; {}{advice}", self.operation, self.step, self.state)
    }
}
impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.cause)
    }
}
