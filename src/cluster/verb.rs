//! What the verbs on a tenant that exists have in common.
use super::OperationContext;
use crate::error::{ChangeError, Failure, FailureState};
use crate::operation::OperationStatus;
use crate::saga::Outcome;
use crate::store::journal::{Begun, Intent, Record};

impl OperationContext {
    /// The operation that has the intent's key already, if there is one: it is joined whatever the tenant's status has
    /// become through it.
    pub(crate) async fn known(&self, intent: &Intent) -> Result<Option<Begun>, ChangeError> {
        match &intent.key {
            Some(_) => self.journal.joined(intent).await?.map(usable).transpose(),
            None => Ok(None),
        }
    }
    /// Commits the intent, under which the caller then holds the operation.
    pub(crate) async fn begin(&self, intent: &Intent) -> Result<Begun, ChangeError> {
        usable(self.journal.begin(intent).await?)
    }
}

fn usable(found: Begun) -> Result<Begun, ChangeError> {
    match found {
        Begun::KeyReused(operation) => Err(ChangeError::KeyReused { operation }),
        Begun::Busy(operation) => Err(ChangeError::Busy { operation }),
        found => Ok(found),
    }
}

/// What was refused under the lane, before anything happened, is refused as it would have been before it.
fn typed(mut failure: Failure) -> ChangeError {
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

/// The operation, if it ended as intended; or why it did not.
pub(crate) fn ended(outcome: Outcome) -> Result<Record, ChangeError> {
    let record = outcome.record;
    let after = match (outcome.failure, record.status) {
        (Some(failure), _) => return Err(typed(failure)),
        (None, OperationStatus::Done) => return Ok(record),
        (None, OperationStatus::Undone) => FailureState::Undone,
        (None, OperationStatus::Undoing) => FailureState::Undoing,
        (None, OperationStatus::Parked) => FailureState::Parked,
        (None, OperationStatus::Running) => FailureState::Continuing,
    };
    Err(record.told(after).into())
}
