use super::{Failure, StoreError};
use crate::names::{InvalidName, ServerName};
use crate::operation::OperationId;

/// Why a server is not set up, drained or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerSetupError {
    /// A name breaks a rule; nothing was begun.
    #[error("the {field} {value:?} is not valid")]
    #[non_exhaustive]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What was given.
        value: String,
        /// The rule.
        source: InvalidName,
    },
    /// Nobody has this name.
    #[error("no server is called {server}")]
    #[non_exhaustive]
    Unknown {
        /// Which.
        server: ServerName,
    },
    /// The row of a server that is ready has another address; nothing was connected or written.
    #[error(
        "the server {server} is at {host}:{port}, not at {given}; call relocate() if it has moved, or set_up().address() \
         with the stored address if only the admin connects another way"
    )]
    #[non_exhaustive]
    Moved {
        /// The server.
        server: ServerName,
        /// The stored host.
        host: String,
        /// The stored port.
        port: u16,
        /// The host and port that the call described.
        given: String,
    },
    /// The admin may not do what block (a) needs.
    #[error("the role {role} lacks {right}; grant it, or use script() and let a DBA run it")]
    #[non_exhaustive]
    Rights {
        /// Whose right.
        role: String,
        /// Which.
        right: &'static str,
    },
    /// A role or database of that name is there and is not ours: it is left alone.
    #[error("the {kind} {name:?} is there already and is not this installation's; choose another prefix")]
    #[non_exhaustive]
    Foreign {
        /// `role` or `database`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The admin cannot connect; nothing was begun.
    #[error(transparent)]
    Connect(Box<super::ClusterError>),
    /// Older than 15.
    #[error("PostgreSQL {found} is too old; 15 or later is needed")]
    #[non_exhaustive]
    Version {
        /// The server's.
        found: String,
    },
    /// Tenants live there.
    #[error("{tenants} tenants live there; purge or move them first")]
    #[non_exhaustive]
    InUse {
        /// How many.
        tenants: u32,
    },
    /// Another set-up of this server is running.
    #[error("operation {operation} is setting it up; wait for it")]
    #[non_exhaustive]
    Busy {
        /// Which.
        operation: OperationId,
    },
    /// It began and failed; the same call goes on where it stopped.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The landlord.
    #[error("the landlord did not answer")]
    Landlord(#[from] StoreError),
}
