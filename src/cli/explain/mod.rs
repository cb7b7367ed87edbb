//! Turns the errors of the facade into a [`CommandError`]: one file for each group of errors.
//!
//! Invariant: a text names commands of this program, never calls of the library, wherever the variant tells what to do.
use super::failure::CommandError;
use crate::error::{Failure, FailureState, SchemaError, StoreError, chain};
use crate::operation::{OperationId, OperationStatus};

mod build;
mod doctor;
mod operation;
mod relocate;
mod server;
mod tenant;
pub(super) use tenant::{explain_change, explain_unknown_tenant};

/// The causes of an error, without its own text.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    error.source().map(chain).unwrap_or_default()
}

/// Another operation is open that keeps this one from beginning.
fn explain_busy(operation: OperationId, status: OperationStatus) -> CommandError {
    match status {
        OperationStatus::Parked => {
            let text = format!("operation {operation} is parked and keeps other operations from beginning");
            let error = CommandError::failed(text).operation(Some(operation));
            error.next(format!("operations show {operation}")).next(format!("operations resume {operation}"))
        }
        _ => CommandError::failed(format!("operation {operation} is in progress; wait until it ends"))
            .operation(Some(operation))
            .next(format!("operations watch {operation}")),
    }
}

/// An operation that began and failed.
fn explain_failure(failure: &Failure) -> CommandError {
    let id = failure.operation;
    let state = match (failure.state, failure.retry_after) {
        (FailureState::Undone, Some(_)) => "It is undone. The same command may succeed now.",
        (FailureState::Undone, None) => "It is undone. Correct the cause and repeat the command.",
        (FailureState::Undoing, _) => "A node of the application continues to undo it.",
        (FailureState::Continuing, _) => "A node of the application continues it.",
        (FailureState::Parked | FailureState::ParkedBeforePivot, _) => "It is parked until it is resumed or ended.",
        (FailureState::Abandoned, _) => "It was abandoned, and parts of what it has made may remain.",
    };
    let cause = chain(&*failure.cause);
    let text = format!("operation {id} failed in step {}: {cause}\n{state}", failure.step);
    let error = CommandError::failed(text).operation(Some(id)).next(format!("operations show {id}"));
    match failure.state {
        FailureState::Parked => error.next(format!("operations resume {id}")),
        FailureState::ParkedBeforePivot => {
            error.next(format!("operations resume {id}")).next(format!("operations undo {id}"))
        }
        _ => error,
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Untrusted(address) => Self::failed(chain(address)).next("doctor"),
            StoreError::Secret(_) => Self::failed(chain(&error)).hint("Check TENANTRY_KEYS or the key file."),
            StoreError::Corrupt(_) => Self::failed(chain(&error)).next("doctor"),
            _ => Self::failed(chain(&error)),
        }
    }
}

impl From<SchemaError> for CommandError {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Missing(missing) => {
                let more = match missing.len() {
                    0..=2 => String::new(),
                    n => format!(" and {} more", n - 2),
                };
                let first: Vec<_> = missing.into_iter().take(2).collect();
                Self::failed(format!("the landlord lacks {}{more}", first.join(", "))).next("init")
            }
            SchemaError::Landlord(error) => error.into(),
            other => Self::failed(chain(&other)),
        }
    }
}
