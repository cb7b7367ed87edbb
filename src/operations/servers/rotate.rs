//! Rotates the passwords of the provisioner's two logins on a server.
//!
//! The admin role cannot manage its own members, but a login may change its own password. So the idle login changes its
//! password first. Then the server's row names that login, all nodes switch to it, and the other login changes its
//! password. After a crash each login has the password of one of two versions. Both are stored, and the next worker
//! tries both. The facade begins the operation through [`Servers::begin_rotation`].
use super::Servers;
use crate::cluster::pg::session::{Purpose, Target};
use crate::cluster::pg::{catalog, ddl, scram, session, terminate};
use crate::cluster::{OperationContext, application_name, require_done};
use crate::error::{ChangeError, ClusterError, StepError, StoreError, VaultError};
use crate::names::{RoleName, ServerName};
use crate::operation::{Lane, OperationId, Subject};
use crate::saga::{Engine, Execution, Outcome, Saga, SagaStep};
use crate::secret::CredentialId;
use crate::server::DatabaseServer;
use crate::sqlstate;
use crate::store::journal::{Begun, Intent};
use crate::store::registry::ServerLoad;
use async_trait::async_trait;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// The stored name of the saga.
const KIND: &str = "rotate_server";

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

impl Servers {
    /// Commits the intent of a new rotation, which the caller must then drive, or finds the operation that already has
    /// `key`.
    pub(crate) async fn begin_rotation(
        &self, name: &str, key: Option<String>, reason: Option<String>,
    ) -> Result<Begun, ChangeError> {
        let unknown = || ChangeError::UnknownServer { server: name.into() };
        let server: ServerName = name.parse().map_err(|_| unknown())?;
        let ServerLoad { server, .. } = self.stores.servers.server(&server).await?.ok_or_else(unknown)?;
        let (from, idle, other) = (server.secret_version, server.idle_login().clone(), server.login.clone());
        let subject = Subject::Server(server.name.clone());
        let intent = Intent {
            key,
            reason,
            request: serde_json::to_value(Request { server: server.name, from, idle, other })
                .map_err(StoreError::corrupt)?,
            intended: Engine::first_intent_steps(&*self.rotation),
            total: self.rotation.steps.len() as u32,
            worker: Uuid::now_v7().to_string(),
            lease: self.engine.settings().lease,
            ..Intent::new(OperationId::new(), KIND, Lane::Change, subject)
        };
        match self.stores.find_joined(&intent).await {
            Ok(Some(begun)) => Ok(begun),
            // A repetition of the call builds another request than the first one if the versions have changed
            // meanwhile. It is still the same call if the stored operation rotates the same server.
            Err(ChangeError::KeyReused { operation }) => self.join_same_server(operation, &intent.subject).await,
            _ => self.stores.begin(&intent).await,
        }
    }

    async fn join_same_server(&self, operation: OperationId, subject: &Subject) -> Result<Begun, ChangeError> {
        match self.stores.journal.read(operation).await? {
            Some(record) if record.kind == KIND && record.subject == *subject => Ok(Begun::Joined(Box::new(record))),
            _ => Err(ChangeError::KeyReused { operation }),
        }
    }

    /// Converts the outcome of an operation to the changed server, or to the caller's error.
    pub(crate) async fn rotated(&self, outcome: Outcome) -> Result<super::Server, ChangeError> {
        let record = require_done(outcome)?;
        let Subject::Server(name) = &record.subject else { return Err(ChangeError::Unknown) };
        let unknown = || ChangeError::UnknownServer { server: name.to_string() };
        Ok(self.stores.servers.server(name).await?.ok_or_else(unknown)?.into())
    }
}

/// The saga and its ordered steps.
pub(super) struct RotateServer {
    stores: OperationContext,
    steps: Vec<Box<dyn SagaStep<RotateServerContext>>>,
}

impl RotateServer {
    pub(super) fn new(stores: OperationContext) -> Self {
        let steps = [Step::Seal, Step::Idle, Step::Flip, Step::Other, Step::Forget];
        Self { stores, steps: steps.map(|s| Box::new(s) as Box<dyn SagaStep<RotateServerContext>>).into() }
    }
}

impl Saga for RotateServer {
    type Context = RotateServerContext;
    fn kind(&self) -> &'static str {
        KIND
    }
    fn steps(&self) -> &[Box<dyn SagaStep<RotateServerContext>>] {
        &self.steps
    }
    /// The flip. Once its intent is committed, other nodes may use the new password.
    fn pivot_index(&self) -> usize {
        2
    }
    fn context(&self, run: &Execution) -> Result<RotateServerContext, StepError> {
        Ok(RotateServerContext { stores: self.stores.clone(), request: run.request()? })
    }
}

/// State of one worker of the rotation. Each step opens sessions of its own.
pub(super) struct RotateServerContext {
    stores: OperationContext,
    request: Request,
}

#[derive(Clone, Copy)]
enum Step {
    /// Stores the new passwords of both logins, before a role has them.
    Seal,
    /// The idle login changes its own password.
    Idle,
    /// Changes the server's row to the idle login and the new version, so that all nodes switch to it. This is the
    /// pivot step.
    Flip,
    /// The other login changes its own password.
    Other,
    /// Deletes the old passwords, which no login has any more.
    Forget,
}

#[async_trait]
impl SagaStep<RotateServerContext> for Step {
    fn name(&self) -> &'static str {
        match self {
            Self::Seal => "secrets.seal",
            Self::Idle => "idle.password",
            Self::Flip => "server.flip",
            Self::Other => "other.password",
            Self::Forget => "secrets.forget",
        }
    }
    /// Each change of a password has an intent of its own: the password must be durable in the vault before a login has
    /// it.
    fn shares_intent_with_previous(&self) -> bool {
        matches!(self, Self::Forget)
    }
    async fn run(&self, run: &Execution, context: &mut RotateServerContext) -> Result<Value, StepError> {
        let request = context.request.clone();
        match self {
            Self::Seal => {
                for role in [&request.idle, &request.other] {
                    let id = request.secret(role, request.to());
                    context.stores.vault.put(&id, &scram::generate_password(), run.fencing_token()).await?;
                }
            }
            Self::Idle => context.change_password(run, &request.idle, request.from, request.to()).await?,
            Self::Flip => context.flip(run).await?,
            Self::Other => context.change_password(run, &request.other, request.from, request.to()).await?,
            Self::Forget => context.forget(run, request.from).await?,
        }
        Ok(Value::Null)
    }
    async fn undo(&self, run: &Execution, context: &mut RotateServerContext) -> Result<(), StepError> {
        let request = context.request.clone();
        match self {
            Self::Seal => context.forget(run, request.to()).await,
            Self::Idle => context.change_password(run, &request.idle, request.to(), request.from).await,
            _ => Ok(()),
        }
    }
}

impl RotateServerContext {
    async fn read_server(&self) -> Result<DatabaseServer, StepError> {
        let unknown = || StepError::fail("the server is no longer registered");
        Ok(self.stores.servers.server(&self.request.server).await?.ok_or_else(unknown)?.server)
    }

    /// Changes a login's password from one version to another. The login may already have the new one.
    async fn change_password(&self, run: &Execution, role: &RoleName, from: i64, to: i64) -> Result<(), StepError> {
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

    async fn flip(&self, run: &Execution) -> Result<(), StepError> {
        let (server, to) = (self.read_server().await?, self.request.to());
        if server.secret_version == to {
            return Ok(());
        }
        let flipped = DatabaseServer { login: self.request.idle.clone(), secret_version: to, ..server.clone() };
        let put = self.stores.servers.put_server(Some(&server), &flipped, Some(run.fencing_token())).await;
        // The row was changed concurrently, by a new setting for example. A retry reads it again.
        put.map_err(|e| if matches!(e, StoreError::Conflict(_)) { StepError::retry(e) } else { e.into() })
    }

    async fn forget(&self, run: &Execution, version: i64) -> Result<(), StepError> {
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
