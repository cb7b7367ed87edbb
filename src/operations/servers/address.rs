//! The address of a server: the part of its row that a relocation changes.
//!
//! A set-up uses [`check_address`] so that only a relocation changes the address of a ready server.
use crate::error::ServerSetupError;
use crate::server::{DatabaseServer, ServerStatus, TlsMode};
use serde::{Deserialize, Serialize};

/// Host, port and TLS settings of a server, as the journal stores them in the request of a relocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: TlsMode,
    pub(super) root_certificate: Option<String>,
}

impl Address {
    /// The address of this server.
    pub(super) fn of(server: &DatabaseServer) -> Self {
        let DatabaseServer { host, port, tls, root_certificate, .. } = server.clone();
        Self { host, port, tls, root_certificate }
    }

    /// The server with this address and otherwise unchanged.
    pub(super) fn assign_to(&self, server: &DatabaseServer) -> DatabaseServer {
        let Self { host, port, tls, root_certificate } = self.clone();
        DatabaseServer { host, port, tls, root_certificate, ..server.clone() }
    }
}

/// Fails if a ready server would get another address. Its tenants are reached at the stored address, and only a
/// relocation examines both addresses before it changes the row.
pub(super) fn check_address(stored: &DatabaseServer, host: &str, port: u16) -> Result<(), ServerSetupError> {
    if stored.status != ServerStatus::Ready || stored.is_at(host, port) {
        return Ok(());
    }
    let (server, given) = (stored.name.clone(), format!("{host}:{port}"));
    Err(ServerSetupError::Moved { server, host: stored.host.clone(), port: stored.port, given })
}
