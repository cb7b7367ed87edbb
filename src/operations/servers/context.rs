//! What a set-up works on, and what one worker of it holds.
use crate::cluster::pg::ownership::MARK;
use crate::cluster::pg::session::{Purpose, Target};
use crate::cluster::{OperationContext, application_name};
use crate::error::StepError;
use crate::names::{DatabaseName, RoleName};
use crate::rt;
use crate::saga::Execution;
use crate::secret::CredentialId;
use crate::server::DatabaseServer;
use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection, PgPool};

/// The comment on the roles of block (a): whose they are.
pub(super) fn marker(installation: uuid::Uuid) -> String {
    format!("{}{installation}", MARK)
}
/// What one call of a set-up works on. It lives with the call: the admin's password is stored nowhere.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) stores: OperationContext,
    pub(super) landlord: PgPool,
    pub(super) server: DatabaseServer,
    pub(super) admin: Option<PgConnectOptions>,
    pub(super) close_shared: bool,
}
impl Work {
    pub(super) async fn password(&self, role: &RoleName) -> Result<SecretString, StepError> {
        Ok(self.stores.vault.open(&self.credential(role)).await?)
    }
    pub(super) fn credential(&self, role: &RoleName) -> CredentialId {
        CredentialId::provisioner(&self.server.name, role, self.server.secret_version)
    }
    /// A session of one of the two logins, in the maintenance database.
    pub(super) async fn provisioner(&self, run: &Execution, role: &RoleName) -> Result<PgConnection, StepError> {
        let (server, password) = (&self.server, self.password(role).await?);
        let (database, name): (&DatabaseName, _) = (&server.names.maintenance, application_name(run));
        let purpose = Purpose::Cluster;
        let target = Target { server, database, role, password: &password, application_name: &name, purpose };
        Ok(target.open().await?)
    }
}
/// The admin's session, opened when the first step needs it.
pub(super) struct ServerSetupContext {
    pub(super) work: Work,
    admin: Option<PgConnection>,
}
impl ServerSetupContext {
    pub(super) fn new(work: Work) -> Self {
        Self { work, admin: None }
    }
    pub(super) async fn admin(&mut self, run: &Execution) -> Result<&mut PgConnection, StepError> {
        if self.admin.is_none() {
            let none = || StepError::fail("this set-up has no admin: it was begun as a script");
            let options = self.work.admin.as_ref().ok_or_else(none)?;
            let options = options.clone().application_name(&application_name(run));
            self.admin = Some(rt::poll_batched(options.connect()).await?);
            run.check().await?;
        }
        self.admin.as_mut().ok_or_else(|| StepError::retry("no session"))
    }
}
