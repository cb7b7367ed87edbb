//! The reason why an operation did not begin, and its conversion to the error of each group of operations.
//!
//! A journal returns it from [`begin`](crate::store::journal::Journal::begin). The operations pass it on by `?`.
use super::{ChangeError, ProvisionError, RelocateError, ServerSetupError, StoreError};
use crate::names::InvalidName;
use crate::operation::{OperationId, OperationStatus};
use std::time::Duration;

/// The reason why an operation did not begin. Nothing was committed. After `Landlord` with
/// [`StoreError::Unavailable`] the outcome is unknown: the intent may have been committed without an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BeginError {
    /// The idempotency key was already used with a different request.
    #[error("operation {operation} used this idempotency key for a different request; use a new key")]
    KeyReused {
        /// The operation that used the key first.
        operation: OperationId,
    },
    /// An open operation of the same subject has the lane.
    #[error("{}", busy_text(*.operation, *.status))]
    #[non_exhaustive]
    Busy {
        /// The open operation.
        operation: OperationId,
        /// Its status.
        status: OperationStatus,
    },
    /// The idempotency key or the reason is not valid. A journal does not return it.
    #[error("the {field} is not valid")]
    Invalid {
        /// The field that is not valid.
        field: &'static str,
        /// The value, shortened to 80 characters.
        value: String,
        /// The rule that it breaks.
        source: InvalidName,
    },
    /// `close()` was called, so this process begins no new operation. A journal does not return it.
    #[error("tenantry is closed; it begins no new operation")]
    Closed,
    /// The journal did not answer, or refused the write.
    #[error(transparent)]
    Landlord(#[from] StoreError),
}

/// What to do about an open operation that keeps another one from beginning.
pub(super) fn busy_text(operation: OperationId, status: OperationStatus) -> String {
    match status {
        OperationStatus::Parked => format!(
            "operation {operation} is parked and keeps other operations from beginning; call \
             operations().resume({operation}) or operations().abandon({operation}, reason), then call again"
        ),
        _ => format!("operation {operation} is in progress; wait until it ends, then call again"),
    }
}

/// How long to wait before a call that found the lane occupied may succeed. A parked operation does not end by itself.
pub(super) fn busy_retry(status: OperationStatus) -> Option<Duration> {
    (status != OperationStatus::Parked).then_some(Duration::from_secs(1))
}

impl From<BeginError> for ChangeError {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::KeyReused { operation } => Self::KeyReused { operation },
            BeginError::Busy { operation, status } => Self::Busy { operation, status },
            BeginError::Invalid { field, source, .. } => Self::Invalid { field, source },
            BeginError::Closed => Self::Closed,
            BeginError::Landlord(error) => Self::Landlord(error),
        }
    }
}

impl From<BeginError> for ProvisionError {
    /// `Busy` cannot happen: the subject is a new tenant, so its lane is free.
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::KeyReused { operation } | BeginError::Busy { operation, .. } => Self::KeyReused { operation },
            BeginError::Invalid { field, value, source } => Self::Invalid { field, value, source },
            BeginError::Closed => Self::Closed,
            BeginError::Landlord(error) => Self::Landlord(error),
        }
    }
}

impl From<BeginError> for ServerSetupError {
    /// A set-up has no key.
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::KeyReused { operation } => Self::Busy { operation, status: OperationStatus::Running },
            BeginError::Busy { operation, status } => Self::Busy { operation, status },
            BeginError::Invalid { field, value, source } => Self::Invalid { field, value, source },
            BeginError::Closed => Self::Closed,
            BeginError::Landlord(error) => Self::Landlord(error),
        }
    }
}

impl From<BeginError> for RelocateError {
    /// A relocation has no key.
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::KeyReused { operation } => Self::Busy { operation, status: OperationStatus::Running },
            BeginError::Busy { operation, status } => Self::Busy { operation, status },
            BeginError::Invalid { field, value, source } => Self::Invalid { field, value, source },
            BeginError::Closed => Self::Closed,
            BeginError::Landlord(error) => Self::Landlord(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A parked operation does not end by itself, so a retry of the call would fail too.
    #[test]
    fn parked_operation_in_the_lane_sets_no_retry_after() {
        let second = Some(Duration::from_secs(1));
        for (status, expected) in [(OperationStatus::Running, second), (OperationStatus::Parked, None)] {
            let busy = || BeginError::Busy { operation: OperationId::new(), status };
            assert_eq!(ChangeError::from(busy()).retry_after(), expected, "ChangeError, {status}");
            assert_eq!(ServerSetupError::from(busy()).retry_after(), expected, "ServerSetupError, {status}");
            assert_eq!(RelocateError::from(busy()).retry_after(), expected, "RelocateError, {status}");
        }
    }
}
