//! Turning the outcome of an operation into the caller's result.
//!
//! Every verb on an existing tenant (suspend, archive, migrate, rotate, …) calls [`require_done`].
use crate::error::{ChangeError, Failure, FailureState};
use crate::operation::OperationStatus;
use crate::saga::Outcome;
use crate::store::journal::Record;

/// Returns the error that the saga's first check raised, as if the caller had got it before the operation began. Only
/// for a failure that left nothing behind (`Undone`); any other failure keeps its state and steps.
fn to_change_error(mut failure: Failure) -> ChangeError {
    if failure.state != FailureState::Undone {
        return failure.into();
    }
    match failure.cause.downcast::<ChangeError>() {
        Ok(error) => *error,
        Err(cause) => {
            failure.cause = cause;
            failure.into()
        }
    }
}

/// Returns the record of an operation that is `Done`; any other status is an error that describes it.
pub(crate) fn require_done(outcome: Outcome) -> Result<Record, ChangeError> {
    let record = outcome.record;
    let state = match (outcome.failure, record.status) {
        (Some(failure), _) => return Err(to_change_error(failure)),
        (None, OperationStatus::Done) => return Ok(record),
        (None, OperationStatus::Undone) => FailureState::Undone,
        (None, OperationStatus::Undoing) => FailureState::Undoing,
        (None, OperationStatus::Parked) => FailureState::Parked,
        (None, OperationStatus::Running) => FailureState::Continuing,
    };
    Err(record.to_failure(state).into())
}
