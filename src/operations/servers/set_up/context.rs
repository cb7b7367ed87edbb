//! State of a server's set-up: the input of one call, and the sessions of its worker.
//!
//! The server admin's connection options are only in memory, so recovery cannot continue a set-up; the same call must
//! be made again. Both types are private to the set-up saga.
use crate::cluster::pg::blockers::{AdminTask, retry_or_name_blocker};
use crate::cluster::pg::ownership::MARK;
use crate::cluster::pg::session::{Purpose, Target};
use crate::cluster::{OperationContext, application_name};
use crate::error::{ClusterError, StepError};
use crate::names::{DatabaseName, RoleName};
use crate::rt;
use crate::saga::Execution;
use crate::secret::CredentialId;
use crate::server::DatabaseServer;
use crate::store::schema::LandlordPool;
use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use std::time::Duration;

/// Comment on the admin role and the provisioner's logins, by which a later set-up recognises that this installation
/// created them.
pub(super) fn marker(installation: uuid::Uuid) -> String {
    format!("{}{installation}", MARK)
}

/// Input of one set-up call. It lives only as long as the call, because the server admin's password is never stored.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) stores: OperationContext,
    pub(super) landlord: LandlordPool,
    pub(super) server: DatabaseServer,
    pub(super) admin: Option<PgConnectOptions>,
    pub(super) close_shared: bool,
}
impl Work {
    /// The stored password of one of the provisioner's logins.
    pub(super) async fn password(&self, role: &RoleName) -> Result<SecretString, StepError> {
        Ok(self.stores.vault.open(&self.credential(role)).await?)
    }
    /// Id of that password in the vault.
    pub(super) fn credential(&self, role: &RoleName) -> CredentialId {
        CredentialId::provisioner(&self.server.name, role, self.server.secret_version)
    }
    /// Opens a session of one of the provisioner's logins in the maintenance database.
    pub(super) async fn open_provisioner(&self, run: &Execution, role: &RoleName) -> Result<PgConnection, StepError> {
        let (server, password) = (&self.server, self.password(role).await?);
        let (database, name): (&DatabaseName, _) = (&server.names.maintenance, application_name(run));
        let purpose = Purpose::Cluster;
        let target = Target { server, database, role, password: &password, application_name: &name, purpose };
        Ok(target.open().await?)
    }
}

/// State of one worker of a set-up. The server admin's session is opened when the first step needs it.
pub(super) struct ServerSetupContext {
    pub(super) work: Work,
    admin: Option<PgConnection>,
}
impl ServerSetupContext {
    pub(super) fn new(work: Work) -> Self {
        Self { work, admin: None }
    }
    /// Does a task in the server admin's session. If another session has locked what it changes, the task is repeated a
    /// few times, and the error names that session. Returns what could not be done.
    pub(super) async fn run_as_admin(
        &mut self, run: &Execution, task: AdminTask<'_>,
    ) -> Result<Vec<String>, StepError> {
        let options = self.work.admin.clone();
        let watcher = async move {
            let options = options.ok_or(ClusterError::Deadline { phase: "connecting", limit: CONNECT })?;
            connect_admin(&options).await
        };
        Ok(retry_or_name_blocker(self.admin_session(run).await?, watcher, task).await?)
    }
    /// The server admin's session. It fails for a set-up by script, which has none.
    pub(super) async fn admin_session(&mut self, run: &Execution) -> Result<&mut PgConnection, StepError> {
        if self.admin.is_none() {
            let none = || StepError::fail("this set-up has no server admin, because it was begun by script()");
            let options = self.work.admin.as_ref().ok_or_else(none)?;
            let options = options.clone().application_name(&application_name(run));
            self.admin = Some(connect_admin(&options).await?);
            run.check().await?;
        }
        self.admin.as_mut().ok_or_else(|| StepError::retry("the server admin's session was not opened"))
    }
}

/// Opens a session of the server admin within ten seconds.
pub(super) async fn connect_admin(options: &PgConnectOptions) -> Result<PgConnection, ClusterError> {
    match tokio::time::timeout(CONNECT, rt::poll_batched(options.connect())).await {
        Ok(Ok(session)) => Ok(session),
        Ok(Err(source)) => Err(ClusterError::Connect {
            role: options.get_username().into(),
            host: options.get_socket().map_or(options.get_host().into(), |path| path.to_string_lossy().into_owned()),
            port: options.get_port(),
            database: options.get_database().unwrap_or_default().into(),
            source,
        }),
        Err(_) => Err(ClusterError::Deadline { phase: "connecting as the server admin", limit: CONNECT }),
    }
}

/// Time limit for connecting as the server admin.
const CONNECT: Duration = Duration::from_secs(10);
