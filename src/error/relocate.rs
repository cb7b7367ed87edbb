//! The errors of a change of a server's address, and of a directory entry whose server is not registered.
//!
//! `Servers::relocate` returns the first one. The resolver and the operations return the second one instead of
//! connecting to a stored address that may be outdated.
use super::begin::{busy_retry, busy_text};
use super::{ClusterError, Failure, StoreError};
use crate::names::{DatabaseName, InvalidName, ServerName};
use crate::operation::{OperationId, OperationStatus};
use crate::tenant::TenantId;
use std::time::Duration;

/// The reason why a server's address was not changed. Except for `Failed` and `Landlord`, nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelocateError {
    /// The server name or the new address is not valid.
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
    /// The set-up of the server has not ended, so no tenant relies on its address.
    #[error("the set-up of the server {server} has not ended; call set_up() with the new address")]
    #[non_exhaustive]
    NotReady {
        /// The server.
        server: ServerName,
    },
    /// Another relocation of the server is open.
    #[error("{}", busy_text(*.operation, *.status))]
    #[non_exhaustive]
    Busy {
        /// The open operation.
        operation: OperationId,
        /// Its status. A parked operation does not end by itself.
        status: OperationStatus,
    },
    /// The provisioner cannot log in at the new address.
    #[error(
        "the provisioner cannot log in at the new address {host}:{port}; check the address, its pg_hba.conf and tls()"
    )]
    #[non_exhaustive]
    Unreachable {
        /// The new host.
        host: String,
        /// The new port.
        port: u16,
        /// The error of the connection attempt.
        source: Box<ClusterError>,
    },
    /// The provisioner could log in at the new address, but a query to it failed.
    #[error("a query to the cluster at the new address {host}:{port} failed; call relocate() again")]
    #[non_exhaustive]
    Unexamined {
        /// The new host.
        host: String,
        /// The new port.
        port: u16,
        /// The error of the query.
        source: Box<ClusterError>,
    },
    /// The maintenance database at the new address does not contain the mark that identifies this server of this
    /// installation.
    #[error(
        "the database {database} at {host}:{port} does not hold this installation's mark for the server {server}; if \
         the old address still answers, call set_up() there to write it, else see Servers::relocate"
    )]
    #[non_exhaustive]
    NoMark {
        /// The server.
        server: ServerName,
        /// The new host.
        host: String,
        /// The new port.
        port: u16,
        /// The maintenance database.
        database: DatabaseName,
    },
    /// The cluster at the new address is a standby.
    #[error("the cluster at {host}:{port} is in recovery; promote it, then call relocate() again")]
    #[non_exhaustive]
    Standby {
        /// The new host.
        host: String,
        /// The new port.
        port: u16,
    },
    /// The old address still answers as a primary.
    #[error(
        "the old address {host}:{port} still answers as a writable server; stop it, then call relocate() again, or \
         call old_is_fenced() first if no client can reach it"
    )]
    #[non_exhaustive]
    OldAnswers {
        /// The old host.
        host: String,
        /// The old port.
        port: u16,
    },
    /// A server answers at the old address, and it could not be determined whether it is writable.
    #[error(
        "the old address {host}:{port} still answers, and it could not be determined whether it is writable; stop it, \
         then call relocate() again, or call old_is_fenced() first if no client can reach it"
    )]
    #[non_exhaustive]
    OldUnseen {
        /// The old host.
        host: String,
        /// The old port.
        port: u16,
        /// The error of the connection attempt or of the query.
        source: Box<ClusterError>,
    },
    /// The system identifier has changed: the cluster was upgraded by pg_upgrade or restored from a dump, or it is a
    /// different cluster.
    #[error(
        "the cluster at the new address has the system identifier {found}, but the server had {stored}; call \
         replaced() if it was upgraded by pg_upgrade or restored from a dump"
    )]
    #[non_exhaustive]
    OtherCluster {
        /// The system identifier in the server's row.
        stored: i64,
        /// The system identifier at the new address.
        found: i64,
    },
    /// The system identifier at the new address cannot be read, so it cannot be compared.
    #[error(
        "the system identifier at {host}:{port} cannot be read and compared; grant the provisioner EXECUTE on \
         pg_catalog.pg_control_system(), or call replaced()"
    )]
    #[non_exhaustive]
    IdentifierUnseen {
        /// The new host.
        host: String,
        /// The new port.
        port: u16,
    },
    /// The operation began and failed. [`Failure::state`] tells what it left.
    #[error(transparent)]
    Failed(Failure),
    /// A store of the landlord failed. The text says how: it did not answer, refused a value, has an unreadable row, or
    /// needs a key of a key provider that failed.
    #[error(transparent)]
    Landlord(#[from] StoreError),
    /// `close()` was called, so no new operation may begin.
    #[error("tenantry is closed; it begins no new operation")]
    Closed,
}

impl RelocateError {
    /// How long to wait before the same call may succeed. `None` if it cannot succeed until something is changed.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Failed(f) => f.retry_after,
            Self::Landlord(error) => error.retry_after(),
            Self::Busy { status, .. } => busy_retry(*status),
            Self::Unreachable { source, .. } | Self::Unexamined { source, .. } if source.is_transient() => {
                Some(Duration::from_secs(1))
            }
            _ => None,
        }
    }
}

/// A directory entry names a server that is not registered. The entry's own host and port are not used instead, because
/// they may be those of a server that was replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the entry of tenant {tenant} names the server {server}, which is not registered; register it by servers().set_up()"
)]
#[non_exhaustive]
pub struct UnknownServer {
    /// Tenant that owns the entry.
    pub tenant: TenantId,
    /// Server name in the entry.
    pub server: ServerName,
}
impl UnknownServer {
    pub(crate) fn new(tenant: TenantId, server: ServerName) -> Self {
        Self { tenant, server }
    }
}
