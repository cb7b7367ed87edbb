//! New passwords for the provisioner's two logins of a server.
//!
//! The admin role cannot manage its own members, but a login may change its own password. So the idle login changes its
//! own first, all nodes go over to it, and then the other one does the same. A crash in between leaves each login with
//! the password of one of two versions, both sealed: whoever comes later tries both.
use super::Servers;
use crate::cluster::pg::session::{Purpose, Target};
use crate::cluster::pg::{catalog, ddl, scram, session, terminate};
use crate::cluster::{OperationContext, application_name, ended};
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

/// What is stored of a call: the versions and the logins as they were when it began.
#[derive(Clone, Serialize, Deserialize)]
struct Request {
    server: ServerName,
    from: i64,
    idle: RoleName,
    other: RoleName,
}
impl Request {
    fn to(&self) -> i64 {
        self.from + 1
    }
    fn secret(&self, role: &RoleName, version: i64) -> CredentialId {
        CredentialId::provisioner(&self.server, role, version)
    }
}

impl Servers {
    /// Commits the intent of new passwords for both logins of a server, or finds the operation that has the key.
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
            intended: Engine::first_intent(&*self.rotation),
            total: self.rotation.steps.len() as u32,
            worker: Uuid::now_v7().to_string(),
            lease: self.engine.settings().lease,
            ..Intent::new(OperationId::new(), KIND, Lane::Change, subject)
        };
        match self.stores.known(&intent).await {
            Ok(Some(begun)) => Ok(begun),
            // The versions have gone on since: the key is this call's all the same.
            Err(ChangeError::KeyReused { operation }) => self.same_server(operation, &intent.subject).await,
            _ => self.stores.begin(&intent).await,
        }
    }

    async fn same_server(&self, operation: OperationId, subject: &Subject) -> Result<Begun, ChangeError> {
        match self.stores.journal.read(operation).await? {
            Some(record) if record.kind == KIND && record.subject == *subject => Ok(Begun::Joined(Box::new(record))),
            _ => Err(ChangeError::KeyReused { operation }),
        }
    }

    /// The server after its logins have new passwords, or why they have not.
    pub(crate) async fn rotated(&self, outcome: Outcome) -> Result<super::Server, ChangeError> {
        let record = ended(outcome)?;
        let Subject::Server(name) = &record.subject else { return Err(ChangeError::Unknown) };
        let unknown = || ChangeError::UnknownServer { server: name.to_string() };
        Ok(self.stores.servers.server(name).await?.ok_or_else(unknown)?.into())
    }
}

/// The plain list of its steps.
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
    /// From the flip's intent on other nodes may use the new password.
    fn pivot_index(&self) -> usize {
        2
    }
    fn context(&self, run: &Execution) -> Result<RotateServerContext, StepError> {
        Ok(RotateServerContext { stores: self.stores.clone(), request: run.request()? })
    }
}

pub(super) struct RotateServerContext {
    stores: OperationContext,
    request: Request,
}

#[derive(Clone, Copy)]
enum Step {
    /// The new secrets of both, before a role has them.
    Seal,
    /// The idle login gives itself its new password.
    Idle,
    /// The server's row names the idle login and the new version: all nodes go over to it.
    Flip,
    /// The other login gives itself its new password.
    Other,
    /// The old secrets open nothing any more.
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
    /// Each password rests on a secret that must be known to be stored, and so has an intent of its own.
    fn shares_intent_with_previous(&self) -> bool {
        matches!(self, Self::Forget)
    }
    async fn run(&self, run: &Execution, context: &mut RotateServerContext) -> Result<Value, StepError> {
        let request = context.request.clone();
        match self {
            Self::Seal => {
                for role in [&request.idle, &request.other] {
                    let id = request.secret(role, request.to());
                    context.stores.vault.put(&id, &scram::password(), run.fencing_token()).await?;
                }
            }
            Self::Idle => context.change(run, &request.idle, request.from, request.to()).await?,
            Self::Flip => context.flip(run).await?,
            Self::Other => context.change(run, &request.other, request.from, request.to()).await?,
            Self::Forget => context.forget(run, request.from).await?,
        }
        Ok(Value::Null)
    }
    async fn undo(&self, run: &Execution, context: &mut RotateServerContext) -> Result<(), StepError> {
        let request = context.request.clone();
        match self {
            Self::Seal => context.forget(run, request.to()).await,
            Self::Idle => context.change(run, &request.idle, request.to(), request.from).await,
            _ => Ok(()),
        }
    }
}

impl RotateServerContext {
    async fn server(&self) -> Result<DatabaseServer, StepError> {
        let unknown = || StepError::fail("the server is not registered any more");
        Ok(self.stores.servers.server(&self.request.server).await?.ok_or_else(unknown)?.server)
    }

    /// From the password of one version to that of another, whichever of the two the login has.
    async fn change(&self, run: &Execution, role: &RoleName, from: i64, to: i64) -> Result<(), StepError> {
        let server = self.server().await?;
        let none = || StepError::fail("the new secret of a login is missing");
        let new = self.secret(role, to).await?.ok_or_else(none)?;
        // The old one is forgotten when both logins have new passwords: then there is nothing to change.
        if let Some(old) = self.secret(role, from).await? {
            match open(run, &server, role, &old).await {
                Ok(mut session) => {
                    let verifier = scram::verifier(&new).await;
                    ddl::own_password(&verifier).run(&mut session, "changing a login's own password").await?;
                    session::close(session).await;
                }
                Err(error) if is_refused(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.probe(run, &server, role, &new).await
    }

    async fn secret(&self, role: &RoleName, version: i64) -> Result<Option<SecretString>, StepError> {
        match self.stores.vault.open(&self.request.secret(role, version)).await {
            Err(VaultError::Missing(_)) => Ok(None),
            opened => Ok(Some(opened?)),
        }
    }

    async fn probe(
        &self, run: &Execution, server: &DatabaseServer, role: &RoleName, password: &SecretString,
    ) -> Result<(), StepError> {
        let mut session = open(run, server, role, password).await?;
        let (_, found, database) = catalog::identity(&mut session).await?;
        session::close(session).await;
        let expected = server.names.admin.to_string();
        match found == expected {
            true => Ok(()),
            false => Err(ClusterError::Identity { login: role.to_string(), found, expected, database }.into()),
        }
    }

    async fn flip(&self, run: &Execution) -> Result<(), StepError> {
        let (server, to) = (self.server().await?, self.request.to());
        if server.secret_version == to {
            return Ok(());
        }
        let flipped = DatabaseServer { login: self.request.idle.clone(), secret_version: to, ..server.clone() };
        let put = self.stores.servers.put_server(Some(&server), &flipped, Some(run.fencing_token())).await;
        // A setting was changed in between: read it again.
        put.map_err(|e| if matches!(e, StoreError::Conflict(_)) { StepError::retry(e) } else { e.into() })
    }

    async fn forget(&self, run: &Execution, version: i64) -> Result<(), StepError> {
        for role in [&self.request.idle, &self.request.other] {
            self.stores.vault.forget(&self.request.secret(role, version), run.fencing_token()).await?;
        }
        Ok(())
    }
}

/// Opens the session, *then* asks whether the epoch is the newest, *then* ends those of earlier workers: none of them
/// sets a password behind this one's back.
async fn open(
    run: &Execution, server: &DatabaseServer, role: &RoleName, password: &SecretString,
) -> Result<PgConnection, Refused> {
    let (database, name) = (&server.names.maintenance, application_name(run));
    let purpose = Purpose::Cluster;
    let target = Target { server, database, role, password, application_name: &name, purpose };
    let mut session = target.open().await?;
    run.check().await.map_err(|e| Refused(e.into()))?;
    if !run.is_first() {
        terminate::terminate_worker_sessions(&mut session, &format!("tenantry/{}/", run.operation())).await?;
    }
    Ok(session)
}

struct Refused(StepError);
impl From<ClusterError> for Refused {
    fn from(error: ClusterError) -> Self {
        Self(error.into())
    }
}
impl From<Refused> for StepError {
    fn from(Refused(error): Refused) -> Self {
        error
    }
}

fn is_refused(Refused(error): &Refused) -> bool {
    let cause = std::error::Error::source(error).and_then(|e| e.downcast_ref::<ClusterError>());
    matches!(cause, Some(ClusterError::Connect { source, .. }) if sqlstate::is_refused_login(source))
}
