//! The error of setting up, draining or removing a server.
//!
//! `Tenantry::servers` returns it to the application. Except for `Failed` and `Landlord`, no operation was begun.
use super::begin::{busy_retry, busy_text};
use super::{Failure, InheritedVariable, StoreError};
use crate::names::{InvalidName, ServerName};
use crate::operation::{OperationId, OperationStatus};
use std::time::Duration;

/// The reason why a server was not set up, drained or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerSetupError {
    /// A name is not valid.
    #[error("the {field} {value:?} is not valid")]
    #[non_exhaustive]
    Invalid {
        /// The field that is not valid.
        field: &'static str,
        /// The value that the caller gave, shortened to 80 characters.
        value: String,
        /// The rule that it breaks.
        source: InvalidName,
    },
    /// No server with this name is registered.
    #[error("no server {server} is registered; see servers().list()")]
    #[non_exhaustive]
    Unknown {
        /// The name that the caller gave.
        server: ServerName,
    },
    /// The server is already set up at a different address. Nothing was connected or written.
    #[error(
        "the server {server} is at {host}:{port}, not at {given}; call relocate() if it has moved, or \
         set_up().address() with the stored address if only the admin connects another way"
    )]
    #[non_exhaustive]
    Moved {
        /// Name of the server.
        server: ServerName,
        /// The stored host.
        host: String,
        /// The stored port.
        port: u16,
        /// The host and port that the call described.
        given: String,
    },
    /// The admin connects through a Unix socket, and the call names no address for the application. Nothing was
    /// connected or written.
    #[error(
        "the admin connects through the Unix socket in {directory}, which a node on another machine cannot reach; give \
         the server's address with set_up().address(host, port), or give that directory as its host if every node runs \
         on this machine"
    )]
    #[non_exhaustive]
    Socket {
        /// Directory of the socket.
        directory: String,
    },
    /// The root certificate cannot be stored for the application's connections. Nothing was connected or written.
    #[error("the root certificate in {origin} cannot be used; give certificates in PEM format, as a file or as text")]
    #[non_exhaustive]
    RootCertificate {
        /// Where the certificate is: a file, or the name of the setting.
        origin: String,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// An environment variable would change every connection to the server.
    #[error(transparent)]
    Environment(#[from] InheritedVariable),
    /// The server admin lacks a right that it needs to create the provisioner's roles and database.
    #[error("the role {role} lacks {right}; grant it, or use script() and let a DBA run it")]
    #[non_exhaustive]
    Rights {
        /// The role that lacks the right.
        role: String,
        /// The missing right.
        right: &'static str,
    },
    /// A role or database of this name exists and does not belong to this installation. It was not changed.
    #[error("the {kind} {name:?} already exists and does not belong to this installation; choose another prefix")]
    #[non_exhaustive]
    Foreign {
        /// `role` or `database`.
        kind: &'static str,
        /// Name of the role or database.
        name: String,
    },
    /// Another session of the server holds a lock that the set-up needs. The set-up has waited for it for several
    /// seconds, and was undone.
    #[error(
        "{phase} waits for a lock of {by}; end that transaction, or its session with pg_terminate_backend(), then call \
         again"
    )]
    #[non_exhaustive]
    Blocked {
        /// What the set-up was doing.
        phase: &'static str,
        /// Process id, user, application and begin of the transaction of each session that holds the lock.
        by: String,
    },
    /// The server admin cannot connect to the server, or a statement of the admin's failed there.
    #[error(transparent)]
    Connect(Box<super::ClusterError>),
    /// The server runs a PostgreSQL version before 15.
    #[error("PostgreSQL {found} is too old; 15 or later is needed")]
    #[non_exhaustive]
    Version {
        /// Version of the server.
        found: String,
    },
    /// The server cannot be removed while it has tenants.
    #[error("the server has {tenants} tenants; purge or move them first")]
    #[non_exhaustive]
    InUse {
        /// Number of tenants on the server.
        tenants: u32,
    },
    /// Another operation on this server is open.
    #[error("{}", busy_text(*.operation, *.status))]
    #[non_exhaustive]
    Busy {
        /// The open operation.
        operation: OperationId,
        /// Its status. A parked operation does not end by itself.
        status: OperationStatus,
    },
    /// The operation began and failed. The same call continues it.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// A store of the landlord failed. The text says how: it did not answer, refused a value, has an unreadable row, or
    /// needs a key of a key provider that failed.
    #[error(transparent)]
    Landlord(#[from] StoreError),
    /// `close()` was called, so no new operation may begin.
    #[error("tenantry is closed; it begins no new operation")]
    Closed,
}
impl ServerSetupError {
    /// How long to wait before the same call may succeed. `None` if it cannot succeed until something is changed.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Failed(f) => f.retry_after,
            Self::Landlord(error) => error.retry_after(),
            Self::Busy { status, .. } => busy_retry(*status),
            Self::Connect(error) if error.is_transient() => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}
