//! The errors of calls about servers.
use super::{causes, explain_busy, explain_failure};
use crate::cli::failure::CommandError;
use crate::error::{RelocateError, ServerSetupError, chain};
use crate::names::ServerName;

fn unknown(server: &ServerName) -> CommandError {
    CommandError::failed(format!("no server {server} is registered")).next("servers list")
}

fn invalid(field: &str, value: &str, rule: &str) -> CommandError {
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
            RelocateError::OtherCluster { stored, found } => {
                let text = format!("the cluster has the system identifier {found}, but the server had {stored}");
                Self::failed(text).hint("Add --replaced if it was upgraded by pg_upgrade or restored from a dump.")
            }
            RelocateError::IdentifierUnseen { host, port } => {
                let text = format!("the system identifier at {host}:{port} cannot be read and compared");
                Self::failed(text)
                    .hint("Grant the provisioner EXECUTE on pg_catalog.pg_control_system(), or add --replaced.")
            }
            RelocateError::Failed(failure) => explain_failure(failure),
            RelocateError::Landlord(error) => error.clone().into(),
            _ => Self::failed(chain(&error)),
        }
    }
}
