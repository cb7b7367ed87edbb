//! The error for an address in the landlord that this process does not trust.
//!
//! The registry of servers and the resolver return it before they connect. A password is sent to no such address.
use crate::names::ServerName;
use crate::server::TlsMode;

/// An address from the landlord to which no password is sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UntrustedAddress {
    /// The host is none of [`Builder::allowed_hosts`](crate::Builder::allowed_hosts).
    #[error("the host {host:?} is not one of allowed_hosts(); nothing was sent to it")]
    #[non_exhaustive]
    Host {
        /// The host in the landlord.
        host: String,
    },
    /// The TLS mode for the host is below [`Builder::require_tls`](crate::Builder::require_tls).
    #[error("the TLS mode for {host:?} is {found}, and require_tls() asks for {required} at least; nothing was sent")]
    #[non_exhaustive]
    Tls {
        /// The host in the landlord.
        host: String,
        /// The mode in the landlord.
        found: TlsMode,
        /// The mode that the builder requires.
        required: TlsMode,
    },
    /// The server's row was changed by something that does not have the key ring.
    #[error(
        "host, port, TLS mode or root certificate of the server {server} were changed outside of tenantry; restore the \
         row, or call set_up() with the right address, TLS mode and certificate"
    )]
    #[non_exhaustive]
    Changed {
        /// Name of the server.
        server: ServerName,
    },
    /// The key that authenticates the rows of servers cannot be opened, so no row can be trusted.
    #[error(
        "the key that authenticates the servers' addresses does not open with this node's keys; check its key ring"
    )]
    NoKey,
    /// The server's row has no authentication code, although the rows of this installation have one.
    #[error(
        "the row of the server {server} has no authentication code; call set_up() with its address, TLS mode and \
         certificate, or rekey() if this version has just replaced an older one"
    )]
    #[non_exhaustive]
    Unsigned {
        /// Name of the server.
        server: ServerName,
    },
}
