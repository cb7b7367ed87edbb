use super::{ClusterError, Failure, StoreError};
use crate::names::{DatabaseName, InvalidName, ServerName};
use crate::operation::OperationId;
use crate::tenant::TenantId;

/// Why a server's address was not changed. Except for `Failed` nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelocateError {
    /// The name cannot be a server's.
    #[error("the server name {value:?} is not valid")]
    #[non_exhaustive]
    Invalid {
        /// What was given.
        value: String,
        /// The rule.
        source: InvalidName,
    },
    /// No server has this name.
    #[error("no server {server} is registered; see servers().list()")]
    #[non_exhaustive]
    Unknown {
        /// The name.
        server: ServerName,
    },
    /// Its set-up has not ended, so no tenant relies on its address.
    #[error("the set-up of the server {server} has not ended; call set_up() with the new address")]
    #[non_exhaustive]
    NotReady {
        /// The server.
        server: ServerName,
    },
    /// Another relocation of the server is open.
    #[error("operation {operation} relocates this server; wait for it")]
    #[non_exhaustive]
    Busy {
        /// The open operation.
        operation: OperationId,
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
        /// What the connection attempt ended with.
        source: Box<ClusterError>,
    },
    /// The cluster at the new address answered, but a question to it failed.
    #[error("the cluster at the new address {host}:{port} cannot be examined; call relocate() again")]
    #[non_exhaustive]
    Unexamined {
        /// The new host.
        host: String,
        /// The new port.
        port: u16,
        /// The failure.
        source: Box<ClusterError>,
    },
    /// The maintenance database at the new address does not say that it is this server of this installation.
    #[error(
        "the database {database} at {host}:{port} does not hold this installation's mark for the server {server}; if the \
         old address still answers, call set_up() there to write it, else see Servers::relocate"
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
    /// The new address leads to a standby.
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
        "the old address {host}:{port} still answers as a writable server; stop it, then call relocate() again, or say \
         old_is_fenced() if no client can reach it"
    )]
    #[non_exhaustive]
    OldAnswers {
        /// The old host.
        host: String,
        /// The old port.
        port: u16,
    },
    /// Something answers at the old address, and whether it is writable could not be seen.
    #[error(
        "the old address {host}:{port} answers, and whether it is writable is not seen; stop it, then call relocate() \
         again, or say old_is_fenced() if no client can reach it"
    )]
    #[non_exhaustive]
    OldUnseen {
        /// The old host.
        host: String,
        /// The old port.
        port: u16,
        /// What the connection attempt or the question ended with.
        source: Box<ClusterError>,
    },
    /// The system identifier is another one: pg_upgrade, a restore from a dump, or another cluster.
    #[error(
        "the cluster at the new address has the system identifier {found}, the server had {stored}; say replaced() if it \
         was upgraded by pg_upgrade or restored from a dump"
    )]
    #[non_exhaustive]
    OtherCluster {
        /// That of the row.
        stored: i64,
        /// That of the new address.
        found: i64,
    },
    /// The system identifier at the new address cannot be read, so it cannot be compared.
    #[error(
        "the system identifier at {host}:{port} is not seen and cannot be compared; grant the provisioner EXECUTE on \
         pg_catalog.pg_control_system(), or say replaced()"
    )]
    #[non_exhaustive]
    IdentifierUnseen {
        /// The new host.
        host: String,
        /// The new port.
        port: u16,
    },
    /// The operation began and did not end; the failure says what it left.
    #[error(transparent)]
    Failed(Failure),
    /// The landlord did not answer.
    #[error("the landlord did not answer")]
    Landlord(#[from] StoreError),
}

/// A directory entry names a server that is not registered. Its own host and port are not used instead: they may be those
/// of a server that was replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the entry of tenant {tenant} names the server {server}, which is not registered; register it by servers().set_up()"
)]
#[non_exhaustive]
pub struct UnknownServer {
    /// The tenant.
    pub tenant: TenantId,
    /// The name in its entry.
    pub server: ServerName,
}
impl UnknownServer {
    pub(crate) fn new(tenant: TenantId, server: ServerName) -> Self {
        Self { tenant, server }
    }
}
