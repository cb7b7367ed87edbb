//! Sessions of the provisioner that only read, for the doctor.
//!
//! An examination opens many short sessions on one server. [`Observer`] holds what they have in common, so that the
//! password is opened once. Its sessions take no lock and no worker permit: a caller that has no permit of its own takes
//! one for each concurrent session.
use super::OperationContext;
use super::pg::session::{Purpose, Target};
use crate::error::{ClusterError, VaultError};
use crate::names::{DatabaseName, RoleName};
use crate::secret::CredentialId;
use crate::server::DatabaseServer;
use secrecy::SecretString;
use sqlx::PgConnection;

/// `application_name` of all sessions of the doctor. No worker's session has it, so a takeover does not end them.
pub(crate) const APPLICATION: &str = "tenantry/doctor";

/// One of the provisioner's logins to a server. Has no `Debug`, so that the password cannot be printed.
pub(crate) struct Observer {
    server: DatabaseServer,
    role: RoleName,
    password: SecretString,
}

impl OperationContext {
    /// Opens the stored password of one of the provisioner's logins. Connects to nothing.
    pub(crate) async fn observer(&self, server: &DatabaseServer, role: &RoleName) -> Result<Observer, VaultError> {
        let id = CredentialId::provisioner(&server.name, role, server.secret_version);
        let password = self.vault.open(&id).await?;
        Ok(Observer { server: server.clone(), role: role.clone(), password })
    }
}

impl Observer {
    /// Opens a session in the maintenance database.
    pub(crate) async fn open_server(&self) -> Result<PgConnection, ClusterError> {
        self.open(&self.server.names.maintenance, Purpose::ObserveServer).await
    }
    /// Opens a session in a tenant's database. The caller has seen that it has no login event trigger, whose function
    /// would run with the provisioner's rights.
    pub(crate) async fn open_tenant(&self, database: &DatabaseName) -> Result<PgConnection, ClusterError> {
        self.open(database, Purpose::ObserveTenant).await
    }

    async fn open(&self, database: &DatabaseName, purpose: Purpose) -> Result<PgConnection, ClusterError> {
        let (server, role, password) = (&self.server, &self.role, &self.password);
        Target { server, database, role, password, application_name: APPLICATION, purpose }.open().await
    }
}
