use crate::error::ServerSetupError;
use crate::server::{DatabaseServer, ServerStatus, TlsMode};
use serde::{Deserialize, Serialize};

/// Where a server is and how it is reached: what a relocation changes of its row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: TlsMode,
    pub(super) root_certificate: Option<String>,
}

impl Address {
    pub(super) fn of(server: &DatabaseServer) -> Self {
        let DatabaseServer { host, port, tls, root_certificate, .. } = server.clone();
        Self { host, port, tls, root_certificate }
    }

    /// The server at this address, otherwise as it is.
    pub(super) fn assign_to(&self, server: &DatabaseServer) -> DatabaseServer {
        let Self { host, port, tls, root_certificate } = self.clone();
        DatabaseServer { host, port, tls, root_certificate, ..server.clone() }
    }
}

/// Refuses another address for a server that is ready: its tenants are reached at the stored one, and only a relocation
/// examines both.
pub(super) fn check_stored(stored: &DatabaseServer, host: &str, port: u16) -> Result<(), ServerSetupError> {
    if stored.status != ServerStatus::Ready || stored.is_at(host, port) {
        return Ok(());
    }
    let (server, given) = (stored.name.clone(), format!("{host}:{port}"));
    Err(ServerSetupError::Moved { server, host: stored.host.clone(), port: stored.port, given })
}
