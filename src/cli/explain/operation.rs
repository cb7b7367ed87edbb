//! The errors of the calls that continue or end an operation.
use super::causes;
use crate::cli::failure::CommandError;
use crate::error::OperationError;

impl From<OperationError> for CommandError {
    fn from(error: OperationError) -> Self {
        let id = error.operation_id();
        let explained = match &error {
            OperationError::Unknown { operation } => {
                Self::failed(format!("no operation {operation} is in the journal")).next("operations list --all")
            }
            OperationError::NotParked { operation, status } => {
                let text = format!("operation {operation} is {status}, not parked; a worker continues it");
                Self::failed(text).next(format!("operations watch {operation}"))
            }
            OperationError::PastPivot { operation } => {
                let text = format!("operation {operation} has begun its pivot step and can only go forward");
                Self::failed(text).next(format!("operations resume {operation}"))
            }
            OperationError::UnknownStep { operation, .. } => {
                Self::failed(error.to_string()).next(format!("operations show {operation}"))
            }
            OperationError::UnknownKind { operation, kind } if kind == "set_up_server" => {
                let text = format!("operation {operation} needs the admin's password; repeat the set-up");
                Self::failed(text).next("servers set-up NAME")
            }
            OperationError::UnknownKind { operation, kind } => {
                let text = format!("this program does not have the steps of operation {operation} ({kind})");
                Self::failed(text).hint("Use the version of the program that began it.")
            }
            OperationError::Reason(_) => Self::usage(format!("the reason is not valid: {}", causes(&error))),
            OperationError::Landlord(store) => Self::from(store.clone()),
            other => Self::failed(other.to_string()),
        };
        explained.operation(id)
    }
}
