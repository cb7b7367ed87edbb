//! Roles that may enter the databases of suspended tenants.
use super::Servers;
use crate::error::ServerSetupError;
use crate::names::RoleName;

impl Servers {
    /// Lets a role of the host's own (a support login, a monitoring agent) connect to the databases of suspended and
    /// archived tenants of this server. Without it, a suspension that finds a role which may still connect fails and names
    /// the role. It grants nothing on the server.
    ///
    /// # Errors
    /// `Unknown` server, `Invalid` name.
    ///
    /// # Cancel safety
    /// One write: it is allowed, or it is not.
    pub async fn allow_role(&self, server: &str, role: &str) -> Result<(), ServerSetupError> {
        let role = parse(role)?;
        self.change(server, |server| {
            if !server.allowed_roles.contains(&role) {
                server.allowed_roles.push(role.clone());
            }
        })
        .await
    }

    /// The way back from [`allow_role`](Self::allow_role). It holds for suspensions that begin later; what the role may do
    /// on the server stays as it is.
    ///
    /// # Errors
    /// `Unknown` server, `Invalid` name.
    ///
    /// # Cancel safety
    /// One write: it is allowed, or it is not.
    pub async fn disallow_role(&self, server: &str, role: &str) -> Result<(), ServerSetupError> {
        let role = parse(role)?;
        self.change(server, |server| server.allowed_roles.retain(|allowed| *allowed != role)).await
    }
}

fn parse(role: &str) -> Result<RoleName, ServerSetupError> {
    role.parse().map_err(|source| ServerSetupError::Invalid { field: "role", value: role.into(), source })
}
