//! Beginning an operation on an existing tenant, and turning its outcome into the caller's result.
//!
//! All verbs (suspend, archive, migrate, rotate, …) share these functions. A repeated call with the same idempotency
//! key joins the first operation, whatever the tenant's status is by then.
use super::OperationContext;
use crate::error::{ChangeError, Failure, FailureState};
use crate::operation::OperationStatus;
use crate::saga::Outcome;
use crate::store::journal::{Begun, Intent, Record};

impl OperationContext {
    /// The operation that has the same idempotency key as this intent, if there is one. The verbs call this before they
    /// check the tenant's status: the first operation may have changed the status, and a repeated call must still join
    /// it.
    pub(crate) async fn find_joined(&self, intent: &Intent) -> Result<Option<Begun>, ChangeError> {
        match &intent.key {
            Some(_) => self.journal.find_joined(intent).await?.map(reject_conflict).transpose(),
            None => Ok(None),
        }
    }
    /// Commits the intent. If it is `New`, this process has the operation's lease and must run it.
    ///
    /// # Errors
    /// `KeyReused` or `Busy` names the operation that has the key or the lane.
    pub(crate) async fn begin(&self, intent: &Intent) -> Result<Begun, ChangeError> {
        reject_conflict(self.journal.begin(intent).await?)
    }
}

fn reject_conflict(found: Begun) -> Result<Begun, ChangeError> {
    match found {
        Begun::KeyReused(operation) => Err(ChangeError::KeyReused { operation }),
        Begun::Busy(operation) => Err(ChangeError::Busy { operation }),
        found => Ok(found),
    }
}

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
