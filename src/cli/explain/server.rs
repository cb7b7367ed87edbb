//! The errors of setting up, draining and removing servers.
use super::{causes, explain_busy, explain_failure};
use crate::cli::failure::CommandError;
use crate::error::{ServerSetupError, chain};
use crate::names::ServerName;

pub(super) fn unknown(server: &ServerName) -> CommandError {
    CommandError::failed(format!("no server {server} is registered")).next("servers list")
}

pub(super) fn invalid(field: &str, value: &str, rule: &str) -> CommandError {
    CommandError::usage(format!("the {field} {value:?} is not valid: {rule}"))
}

impl From<ServerSetupError> for CommandError {
    fn from(error: ServerSetupError) -> Self {
        match &error {
            ServerSetupError::Invalid { field, value, .. } => invalid(field, value, &causes(&error)),
            ServerSetupError::Unknown { server } => unknown(server),
            ServerSetupError::Moved { server, host, port, given } => {
                let text = format!("the server {server} is at {host}:{port}, not at {given}");
                let error = Self::failed(text).next(format!("servers relocate {server} {given}"));
                error.hint(format!("If only the admin connects another way, add --address {host}:{port}."))
            }
            ServerSetupError::Socket { directory } => {
                let text = format!(
                    "the admin connects through the Unix socket in {directory}, which other machines cannot reach"
                );
                Self::failed(text).hint("Add --address HOST:PORT, the address for the application.")
            }
            ServerSetupError::Environment(inherited) => Self::usage(format!(
                "the variable {} would change every connection to a server; remove it from the environment",
                inherited.variable
            )),
            ServerSetupError::Rights { role, right } => {
                let text = format!("the role {role} lacks {right}");
                Self::failed(text)
                    .hint("Grant it, or let a DBA run the output of: servers set-up NAME --address HOST:PORT --script")
            }
            ServerSetupError::Foreign { .. } => {
                Self::failed(error.to_string()).hint("Add --prefix PREFIX to the same command.")
            }
            ServerSetupError::InUse { tenants } => {
                Self::failed(format!("the server has {tenants} tenants; purge them first")).next("tenants list")
            }
            ServerSetupError::Busy { operation, status } => explain_busy(*operation, *status),
            ServerSetupError::Failed(failure) => explain_failure(failure),
            ServerSetupError::Landlord(error) => error.clone().into(),
            ServerSetupError::Connect(_) => {
                let text = format!("the admin cannot work on the server: {}", chain(&error));
                Self::failed(text).hint("Check the admin URL, the server's pg_hba.conf and --tls.")
            }
            _ => Self::failed(chain(&error)),
        }
    }
}
