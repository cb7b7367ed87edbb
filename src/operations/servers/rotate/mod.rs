//! Rotates the passwords of the provisioner's two logins on a server.
//!
//! The admin role cannot manage its own members, but a login may change its own password. So the idle login changes its
//! password first. Then the server's row names that login, all nodes switch to it, and the other login changes its
//! password. After a crash each login has the password of one of two versions. Both are stored, and the next worker
//! tries both. [`Tenantry::rotate_server`](crate::Tenantry::rotate_server)
//! begins the operation.
use crate::names::{RoleName, ServerName};
use crate::secret::CredentialId;
use serde::{Deserialize, Serialize};

mod context;
mod driver;
mod saga;
mod steps;
pub(super) use context::RotateServerContext;
pub use driver::RotateServer;
pub(super) use saga::define;

/// The request as the journal stores it: versions and logins at the time of the call.
#[derive(Clone, Serialize, Deserialize)]
struct Request {
    server: ServerName,
    /// Version of the old passwords.
    from: i64,
    /// Login that no node used when the operation began. It changes its password first.
    idle: RoleName,
    /// Login that the nodes used when the operation began.
    other: RoleName,
}
impl Request {
    /// Version of the new passwords.
    fn to(&self) -> i64 {
        self.from + 1
    }
    /// Id of a password in the vault.
    fn secret(&self, role: &RoleName, version: i64) -> CredentialId {
        CredentialId::provisioner(&self.server, role, version)
    }
}
