//! The error of the calls that continue or end an open operation: resume, undo, skip a step, abandon.
//!
//! `Tenantry::operations` returns it to an administrator's tool. Except for `Landlord`, the call changed nothing.
use super::StoreError;
use crate::names::InvalidName;
use crate::operation::{OperationId, OperationStatus};
use std::time::Duration;

/// The reason why an open operation was not continued or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError {
    /// No operation has this id.
    #[error("no operation {operation} is in the journal; see operations().open()")]
    #[non_exhaustive]
    Unknown {
        /// The id that the caller gave.
        operation: OperationId,
    },
    /// The operation has ended.
    #[error("operation {operation} has ended and is {status}")]
    #[non_exhaustive]
    Over {
        /// The operation.
        operation: OperationId,
        /// Its final status.
        status: OperationStatus,
    },
    /// Only a parked operation can be resumed or undone by a caller.
    #[error(
        "operation {operation} is {status}, not parked; wait for recovery to continue it, or end it with \
         operations().abandon({operation}, reason)"
    )]
    #[non_exhaustive]
    NotParked {
        /// The operation.
        operation: OperationId,
        /// Its status.
        status: OperationStatus,
    },
    /// The operation has begun its pivot step, so it can only go forward.
    #[error(
        "operation {operation} has begun its pivot step and cannot be undone; continue it with \
         operations().resume({operation}), or end it with operations().abandon({operation}, reason)"
    )]
    #[non_exhaustive]
    PastPivot {
        /// The operation.
        operation: OperationId,
    },
    /// The operation has no such step, or the step is already completed, or its undo is.
    #[error("operation {operation} has no open step {step:?}; its last event names the step that it is at")]
    #[non_exhaustive]
    UnknownStep {
        /// The operation.
        operation: OperationId,
        /// The step that the caller gave.
        step: String,
    },
    /// Other steps or the isolation of tenants rely on the step.
    #[error(
        "step {step} of operation {operation} cannot be skipped, because other steps rely on it; only follow-up work \
         and the application's own steps can be"
    )]
    #[non_exhaustive]
    NotSkippable {
        /// The operation.
        operation: OperationId,
        /// The step that the caller gave.
        step: String,
    },
    /// This process cannot drive the operation: another version of the program began it, or it is a set-up of a server,
    /// which needs the admin's password.
    #[error(
        "this process cannot continue operation {operation} of the kind {kind:?}; for a set-up call set_up() again, for \
         another kind use the version of the program that began it, or end it with \
         operations().abandon({operation}, reason)"
    )]
    #[non_exhaustive]
    UnknownKind {
        /// The operation.
        operation: OperationId,
        /// The kind of the operation.
        kind: String,
    },
    /// The reason is empty or cannot be stored. It names the person and the cause.
    #[error("the reason is not valid")]
    Reason(#[source] InvalidName),
    /// A store of the landlord failed. The text says how: it did not answer, refused a value, has an unreadable row, or
    /// needs a key of a key provider that failed.
    #[error(transparent)]
    Landlord(#[from] StoreError),
}
impl OperationError {
    /// The operation that the call was about; `None` if the error does not name it.
    pub fn operation_id(&self) -> Option<OperationId> {
        match self {
            Self::Unknown { operation }
            | Self::Over { operation, .. }
            | Self::NotParked { operation, .. }
            | Self::PastPivot { operation }
            | Self::UnknownStep { operation, .. }
            | Self::NotSkippable { operation, .. }
            | Self::UnknownKind { operation, .. } => Some(*operation),
            Self::Reason(_) | Self::Landlord(_) => None,
        }
    }
    /// How long to wait before the same call may succeed. `None` if it cannot succeed until something is changed.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Landlord(error) => error.retry_after(),
            _ => None,
        }
    }
}
