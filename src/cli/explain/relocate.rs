//! The errors of changing a server's address.
use super::server::{invalid, unknown};
use super::{causes, explain_busy, explain_failure};
use crate::cli::failure::CommandError;
use crate::error::{RelocateError, chain};

impl From<RelocateError> for CommandError {
    fn from(error: RelocateError) -> Self {
        match &error {
            RelocateError::Invalid { field, value, .. } => invalid(field, value, &causes(&error)),
            RelocateError::Unknown { server } => unknown(server),
            RelocateError::NotReady { server } => {
                let text = format!("the set-up of the server {server} has not ended");
                Self::failed(text).next(format!("servers set-up {server}"))
            }
            RelocateError::Busy { operation, status } => explain_busy(*operation, *status),
            RelocateError::Unreachable { host, port, .. } => {
                let text = format!("the provisioner cannot log in at {host}:{port}: {}", causes(&error));
                Self::failed(text).hint("Check the address, its pg_hba.conf and --tls.")
            }
            RelocateError::NoMark { server, host, port, database } => {
                let text = format!(
                    "the database {database} at {host}:{port} does not have this installation's mark for the server {server}"
                );
                Self::failed(text).next(format!("servers set-up {server}"))
            }
            RelocateError::Standby { host, port } => {
                Self::failed(format!("the cluster at {host}:{port} is in recovery"))
                    .hint("Promote it, then repeat the command.")
            }
            RelocateError::OldAnswers { host, port } | RelocateError::OldUnseen { host, port, .. } => {
                let text = format!("the old address {host}:{port} still answers, and may be writable");
                let error = Self::failed(text).hint("Stop that server, then repeat the command.");
                error.hint("Add --old-is-fenced only if no client can reach it.")
            }
            RelocateError::OtherCluster { .. } | RelocateError::IdentifierUnseen { .. } => explain_identity(&error),
            RelocateError::Failed(failure) => explain_failure(failure),
            RelocateError::Landlord(error) => error.clone().into(),
            _ => Self::failed(chain(&error)),
        }
    }
}

/// Whether it is the same cluster is not certain.
fn explain_identity(error: &RelocateError) -> CommandError {
    match error {
        RelocateError::OtherCluster { stored, found } => {
            let text = format!("the cluster has the system identifier {found}, but the server had {stored}");
            CommandError::failed(text).hint("Add --replaced if it was upgraded by pg_upgrade or restored from a dump.")
        }
        RelocateError::IdentifierUnseen { host, port } => {
            let text = format!("the system identifier at {host}:{port} cannot be read and compared");
            CommandError::failed(text)
                .hint("Grant the provisioner EXECUTE on pg_catalog.pg_control_system(), or add --replaced.")
        }
        _ => CommandError::failed(chain(error)),
    }
}
