//! State of one worker of a rotation of the provisioner's passwords, and what its steps do with a server.
//!
//! Each method opens sessions of its own. A login has the password of one of two versions, and both are stored, so a
//! method first finds out which one it has.
use super::Request;
use crate::cluster::pg::session::{Purpose, Target};
use crate::cluster::pg::{catalog, ddl, scram, session, terminate};
use crate::cluster::{OperationContext, application_name};
use crate::error::{ClusterError, StepError, StoreError, VaultError};
use crate::names::RoleName;
use crate::saga::Execution;
use crate::server::DatabaseServer;
use crate::sqlstate;
use secrecy::SecretString;
use sqlx::PgConnection;

/// The stores, and the request of the operation.
pub(in crate::operations::servers) struct RotateServerContext {
    pub(super) stores: OperationContext,
    pub(super) request: Request,
}

impl RotateServerContext {
    pub(super) fn new(stores: OperationContext, run: &Execution) -> Result<Self, StepError> {
        Ok(Self { stores, request: run.request()? })
    }

    async fn read_server(&self) -> Result<DatabaseServer, StepError> {
        let unknown = || StepError::fail("the server is no longer registered");
        Ok(self.stores.servers.server(&self.request.server).await?.ok_or_else(unknown)?.server)
    }

    /// Changes a login's password from one version to another. The login may already have the new one.
    pub(super) async fn change_password(
        &self, run: &Execution, role: &RoleName, from: i64, to: i64,
    ) -> Result<(), StepError> {
        let server = self.read_server().await?;
        let none = || StepError::fail("the new password of a provisioner login is missing from the vault");
        let new = self.open_secret(role, to).await?.ok_or_else(none)?;
        // The old passwords are deleted only when both logins have new ones. Without an old password there is nothing
        // to change.
        if let Some(old) = self.open_secret(role, from).await? {
            match open(run, &server, role, &old).await {
                Ok(mut session) => {
                    let verifier = scram::derive_verifier(&new).await;
                    ddl::change_own_password(&verifier).run(&mut session, "changing a login's own password").await?;
                    session::close(session).await;
                }
                Err(error) if is_refused(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.probe(run, &server, role, &new).await
    }

    /// Opens a stored password; `None` if the vault does not have it.
    async fn open_secret(&self, role: &RoleName, version: i64) -> Result<Option<SecretString>, StepError> {
        match self.stores.vault.open(&self.request.secret(role, version)).await {
            Err(VaultError::Missing(_)) => Ok(None),
            opened => Ok(Some(opened?)),
        }
    }

    /// Checks that the login can connect with this password and acts as the admin role.
    async fn probe(
        &self, run: &Execution, server: &DatabaseServer, role: &RoleName, password: &SecretString,
    ) -> Result<(), StepError> {
        let mut session = open(run, server, role, password).await?;
        let (_, found, database) = catalog::read_identity(&mut session).await?;
        session::close(session).await;
        let expected = server.names.admin.to_string();
        match found == expected {
            true => Ok(()),
            false => Err(ClusterError::Identity { login: role.to_string(), found, expected, database }.into()),
        }
    }

    pub(super) async fn flip(&self, run: &Execution) -> Result<(), StepError> {
        let (server, to) = (self.read_server().await?, self.request.to());
        if server.secret_version == to {
            return Ok(());
        }
        let flipped = DatabaseServer { login: self.request.idle.clone(), secret_version: to, ..server.clone() };
        let put = self.stores.servers.put_server(Some(&server), &flipped, Some(run.fencing_token())).await;
        // The row was changed concurrently, by a new setting for example. A retry reads it again.
        put.map_err(|e| if matches!(e, StoreError::Conflict(_)) { StepError::retry(e) } else { e.into() })
    }

    pub(super) async fn forget(&self, run: &Execution, version: i64) -> Result<(), StepError> {
        for role in [&self.request.idle, &self.request.other] {
            self.stores.vault.forget(&self.request.secret(role, version), run.fencing_token()).await?;
        }
        Ok(())
    }
}

/// Opens a session of a provisioner login, then checks that this worker's epoch is the newest, then terminates the
/// sessions of earlier workers. In this order no earlier worker can change a password after this one has begun: either
/// its session is found and terminated, or it is opened later and fails the check of its epoch.
async fn open(
    run: &Execution, server: &DatabaseServer, role: &RoleName, password: &SecretString,
) -> Result<PgConnection, OpenError> {
    let (database, name) = (&server.names.maintenance, application_name(run));
    let purpose = Purpose::Cluster;
    let target = Target { server, database, role, password, application_name: &name, purpose };
    let mut session = target.open().await?;
    run.check().await.map_err(|e| OpenError(e.into()))?;
    if !run.is_first() {
        terminate::terminate_worker_sessions(&mut session, &format!("tenantry/{}/", run.operation())).await?;
    }
    Ok(session)
}

/// The failure to open a session. [`is_refused`] tells a refused login from other failures.
struct OpenError(StepError);
impl From<ClusterError> for OpenError {
    fn from(error: ClusterError) -> Self {
        Self(error.into())
    }
}
impl From<OpenError> for StepError {
    fn from(OpenError(error): OpenError) -> Self {
        error
    }
}

/// Whether PostgreSQL refused the login, so that it probably has another password.
fn is_refused(OpenError(error): &OpenError) -> bool {
    let cause = std::error::Error::source(error).and_then(|e| e.downcast_ref::<ClusterError>());
    matches!(cause, Some(ClusterError::Connect { source, .. }) if sqlstate::is_refused_login(source))
}
