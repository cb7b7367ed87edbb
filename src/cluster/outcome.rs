//! Turning the outcome of an operation into the caller's result.
//!
//! Every operation on an existing tenant (suspend, archive, migrate, rotate, …) calls [`require_done`].
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
    match (outcome.failure, record.status) {
        (Some(failure), _) => Err(to_change_error(failure)),
        (None, OperationStatus::Done) => Ok(record),
        (None, _) => Err(record.to_failure(record.failure_state()).into()),
    }
}
