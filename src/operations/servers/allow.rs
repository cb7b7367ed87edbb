//! Roles of the application, other than its logins for tenants, that may connect to the databases of suspended and
//! archived tenants.
//!
//! The list is part of the server's row. A suspension or an archive reads it when it verifies that no other role can
//! connect. Changing the list changes no rights on the server.
use super::{Servers, invalid};
use crate::error::ServerSetupError;
use crate::names::RoleName;

impl Servers {
    /// Permits that a role of the application's own (a support login, a monitoring agent) can connect to the databases
    /// of suspended and archived tenants of this server. A suspension fails if it finds a role outside this list that
    /// can still connect, and names the role. The call grants nothing on the server.
    ///
    /// # Errors
    /// [`ServerSetupError::Unknown`] if no server has this name, [`ServerSetupError::Invalid`] for an unusable role
    /// name.
    ///
    /// # Cancel safety
    /// The call is one write. After a dropped future the role is either allowed or not.
    pub async fn allow_role(&self, server: &str, role: &str) -> Result<(), ServerSetupError> {
        let role = parse_role(role)?;
        self.change(server, |server| {
            if !server.allowed_roles.contains(&role) {
                server.allowed_roles.push(role.clone());
            }
        })
        .await
    }

    /// Reverses [`allow_role`](Self::allow_role). It affects suspensions that begin later. The role's rights on the
    /// server do not change.
    ///
    /// # Errors
    /// [`ServerSetupError::Unknown`] if no server has this name, [`ServerSetupError::Invalid`] for an unusable role
    /// name.
    ///
    /// # Cancel safety
    /// The call is one write. After a dropped future the role is either allowed or not.
    pub async fn disallow_role(&self, server: &str, role: &str) -> Result<(), ServerSetupError> {
        let role = parse_role(role)?;
        self.change(server, |server| server.allowed_roles.retain(|allowed| *allowed != role)).await
    }
}

fn parse_role(role: &str) -> Result<RoleName, ServerSetupError> {
    role.parse().map_err(invalid("role", role))
}
