//! How a worker comes to its hold: a place, a session, and only then the fence.
use super::{LockedSession, provisioner};
use crate::cluster::pg::ownership::{MARK, Ownership};
use crate::cluster::pg::session::{self, Purpose};
use crate::cluster::pg::{dependents, ensure, lock, membership, terminate};
use crate::cluster::{OperationContext, WorkerPermits, application_name};
use crate::error::{ClusterError, StepError, VaultError};
use crate::names::TenantNames;
use crate::operation::{Lane, OperationId, Subject};
use crate::saga::Execution;
use crate::secret::CredentialId;
use crate::server::DatabaseServer;
use crate::sqlstate;
use crate::tenant::TenantId;
use futures_util::future::try_join;
use secrecy::SecretString;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

/// How long a worker waits for the lock of its subject before the engine tries again.
const LOCK: Duration = Duration::from_secs(10);
/// How long a worker waits for a free place among the workers of its process.
const PLACE: Duration = Duration::from_secs(60);

/// A session with its place among the workers of this process, behind no fence yet.
pub(crate) struct Preconnected {
    locked: LockedSession,
    /// Of the lock of its subject.
    key: i64,
}

impl Preconnected {
    /// Asks whether the epoch is the newest, *then* shuts out whoever was there before, takes the lock, and only then
    /// looks at the cluster. A first change shuts nobody out, so it need not know before it asks for the lock: a session
    /// that has it and stops here is one that a successor ends, as any other holder.
    pub(in crate::cluster) async fn behind_fence(
        mut self, run: &Execution, names: &TenantNames,
    ) -> Result<LockedSession, StepError> {
        let shut_out = self.locked.shut_out(run, self.key, names);
        if run.is_first() && run.record().lane == Lane::Change {
            try_join(async { Ok(run.check().await?) }, shut_out).await?;
        } else {
            run.check().await?;
            shut_out.await?;
        }
        Ok(self.locked)
    }
}

impl OperationContext {
    /// Opens the session *before* it asks whether the epoch is the newest.
    pub(crate) async fn locked_session(
        &self, run: &Execution, server: DatabaseServer, names: &TenantNames,
    ) -> Result<LockedSession, StepError> {
        let tenant = run.subject().tenant().ok_or_else(|| StepError::fail("not about a tenant"))?;
        let opened = self.open(tenant, run.record().lane, application_name(run), server).await?;
        opened.behind_fence(run, names).await
    }

    pub(in crate::cluster) async fn open(
        &self, tenant: TenantId, lane: Lane, name: String, server: DatabaseServer,
    ) -> Result<Preconnected, StepError> {
        let place = self.permits_on(server.name.as_str())?.enter(lane).await?;
        let installation = self.installation().await?;
        let password = self.provisioner_password(&server).await?;
        let ownership = Ownership { marker: marker(installation, tenant), admin: server.names.admin.clone() };
        let locked = match LockedSession::open(server.clone(), password, ownership, name, place).await {
            Err(error) if self.was_rotated(&server, &error).await? => return Err(StepError::retry(error)),
            opened => opened?,
        };
        Ok(Preconnected { locked, key: lock::key(installation, &Subject::Tenant(tenant).to_string()) })
    }

    /// A hold for retiring a login that nothing uses any more: its name never comes back, so it needs no lock and no
    /// epoch, and two of them at once do no harm.
    pub(crate) async fn retirer(&self, tenant: TenantId, server: DatabaseServer) -> Result<LockedSession, StepError> {
        let mut locked = self.open(tenant, Lane::Change, String::from("tenantry/retire"), server).await?.locked;
        session::quiet(&mut locked.session).await.map_err(ClusterError::sql("keeping statements out of the log"))?;
        Ok(locked)
    }

    /// Whether the login was refused because it has another password by now.
    async fn was_rotated(&self, server: &DatabaseServer, error: &ClusterError) -> Result<bool, StepError> {
        match error {
            ClusterError::Connect { source, .. } if sqlstate::is_refused_login(source) => {
                let now = self.servers.server(&server.name).await?.map(|load| load.server);
                Ok(now.is_some_and(|now| (&now.login, now.secret_version) != (&server.login, server.secret_version)))
            }
            _ => Ok(false),
        }
    }

    /// It never changes, so it is asked for once.
    async fn installation(&self) -> Result<Uuid, StepError> {
        Ok(*self.installation.get_or_try_init(|| self.servers.installation()).await?)
    }

    async fn provisioner_password(&self, server: &DatabaseServer) -> Result<SecretString, VaultError> {
        self.vault.open(&CredentialId::provisioner(&server.name, &server.login, server.secret_version)).await
    }
}

/// The comment on every role of a tenant: what this installation made for it, and nothing else, is ours.
fn marker(installation: Uuid, tenant: TenantId) -> String {
    format!("{MARK}{installation} {tenant}")
}

impl WorkerPermits {
    async fn enter(&self, lane: Lane) -> Result<OwnedSemaphorePermit, StepError> {
        let places = match lane {
            Lane::Preempt => self.fences.clone(),
            _ => self.changes.clone(),
        };
        match tokio::time::timeout(PLACE, places.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(StepError::retry("the workers of this process are closed")),
            Err(_) => {
                Err(ClusterError::Deadline { phase: "waiting for a place among the workers", limit: PLACE }.into())
            }
        }
    }
}

impl LockedSession {
    /// The session alone, behind no fence yet.
    pub(in crate::cluster) async fn open(
        server: DatabaseServer, password: SecretString, ownership: Ownership, name: String, place: OwnedSemaphorePermit,
    ) -> Result<Self, ClusterError> {
        let session = provisioner(&server, &server.names.maintenance, &password, &name, Purpose::Locked).await?;
        Ok(Self { session, server, password, ownership, name, _place: place })
    }

    async fn shut_out(&mut self, run: &Execution, key: i64, names: &TenantNames) -> Result<(), StepError> {
        let fence = run.record().lane == Lane::Preempt;
        let first = run.is_first();
        if !first {
            self.end_workers(run.operation()).await?;
        }
        if fence && let Some(parked) = run.output::<Option<OperationId>>("change.park")?.flatten() {
            self.end_workers(parked).await?;
        }
        // Whoever still has the lock belongs to an epoch that is over: ours, or that of an operation which a fence has
        // parked. A first change waits: it may be a fence that is about to end.
        lock::take(&mut self.session, key, fence || !first, LOCK).await?;
        if !first {
            dependents::close_left_open(&mut self.session, &self.ownership.admin).await?;
            membership::give_back_left(&mut self.session, &self.ownership.admin).await?;
            let (database, migrator) = (&names.database, &names.migrator);
            ensure::refuse_logins(&mut self.session, database, &[migrator], &self.ownership).await?;
        }
        Ok(())
    }

    async fn end_workers(&mut self, operation: OperationId) -> Result<(), StepError> {
        Ok(terminate::terminate_worker_sessions(&mut self.session, &format!("tenantry/{operation}/")).await?)
    }
}
