//! Opening a locked session: a worker permit, a session, the epoch check, and then the advisory lock.
//!
//! [`OperationContext::open`] does the first two, and [`Preconnected::take_lock`] the others. The order
//! keeps an outdated worker from acting: the session is open before the epoch is checked, so that a new worker either
//! finds and terminates it or has raised the epoch before the check.
use super::{LockedSession, SETTLING, open_provisioner_session};
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

/// How long a worker waits for the lock of its tenant. Then the step fails and the saga runner tries it again.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a worker waits for a worker permit of its process.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A session with its worker permit, before the epoch check and without the lock. It must not run any cluster
/// statement.
pub(crate) struct Preconnected {
    locked: LockedSession,
    /// Key of the tenant's advisory lock.
    key: i64,
}

impl Preconnected {
    /// Checks that the epoch is the newest, then terminates the sessions of earlier workers and takes the lock.
    ///
    /// # Errors
    /// A retry when the lock is not free within 10 s; `Fenced` when a newer worker has taken over.
    ///
    /// The first worker of a change terminates nothing, so it requests the lock while the check is running. If the
    /// check fails after the lock was granted, dropping the session releases the lock, and a new worker would terminate
    /// it anyway.
    pub(in crate::cluster) async fn take_lock(
        mut self, run: &Execution, names: &TenantNames,
    ) -> Result<LockedSession, StepError> {
        let take_over = self.locked.take_over(run, self.key, names);
        if run.is_first() && run.record().lane == Lane::Change {
            try_join(async { Ok(run.check().await?) }, take_over).await?;
        } else {
            run.check().await?;
            take_over.await?;
        }
        Ok(self.locked)
    }
}

impl OperationContext {
    /// Waits for a worker permit and opens the session. The caller takes the lock after that.
    ///
    /// # Errors
    /// A retry when no permit is free within 60 s, or when PostgreSQL refuses the login because its password was
    /// rotated in the meantime.
    pub(in crate::cluster) async fn open(
        &self, tenant: TenantId, lane: Lane, name: String, server: DatabaseServer,
    ) -> Result<Preconnected, StepError> {
        let permit = self.take_worker_permit(server.name.as_str(), lane).await?;
        let installation = self.load_installation().await?;
        let password = self.load_provisioner_password(&server).await?;
        let ownership = Ownership { marker: marker(installation, tenant), admin: server.names.admin.clone() };
        let locked = match LockedSession::open(server.clone(), password, ownership, name, permit).await {
            Err(error) if self.has_new_password(&server, &error).await? => return Err(StepError::retry(error)),
            opened => opened?,
        };
        Ok(Preconnected { locked, key: lock::key(installation, &Subject::Tenant(tenant).to_string()) })
    }

    /// Waits for a permit to have sessions on this server. A worker takes one for all its sessions there.
    ///
    /// # Errors
    /// A retry when none is free within 60 s.
    pub(crate) async fn take_worker_permit(&self, server: &str, lane: Lane) -> Result<OwnedSemaphorePermit, StepError> {
        self.permits_on(server)?.acquire(lane).await
    }

    /// Opens a session for retiring logins that nothing uses any more. It takes no lock and checks no epoch: the name
    /// of a retired login is never used again, and two such sessions may run the same statements at the same time.
    pub(crate) async fn open_retirement_session(
        &self, tenant: TenantId, server: DatabaseServer,
    ) -> Result<LockedSession, StepError> {
        let mut locked = self.open(tenant, Lane::Change, String::from("tenantry/retire"), server).await?.locked;
        session::silence_statement_log(&mut locked.session)
            .await
            .map_err(ClusterError::sql("keeping statements out of the log"))?;
        Ok(locked)
    }

    /// Opens the session of an operation whose subject is a server, checks the epoch, and takes the server's lock. The
    /// server's lock is a lock of its own: operations on its tenants do not wait for it.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`Preconnected::take_lock`].
    pub(crate) async fn open_on_server(
        &self, run: &Execution, server: DatabaseServer,
    ) -> Result<LockedSession, StepError> {
        let permit = self.take_worker_permit(server.name.as_str(), run.record().lane).await?;
        let installation = self.load_installation().await?;
        let password = self.load_provisioner_password(&server).await?;
        let ownership = Ownership { marker: format!("{MARK}{installation}"), admin: server.names.admin.clone() };
        let name = application_name(run);
        let mut locked = match LockedSession::open(server.clone(), password, ownership, name, permit).await {
            Err(error) if self.has_new_password(&server, &error).await? => return Err(StepError::retry(error)),
            opened => opened?,
        };
        run.check().await?;
        let key = lock::key(installation, &run.subject().to_string());
        if run.is_first() {
            lock::take(&mut locked.session, key, LOCK_TIMEOUT).await?;
        } else {
            locked.terminate_workers(run.operation()).await?;
            lock::take_from_outdated_worker(&mut locked.session, key, LOCK_TIMEOUT).await?;
        }
        Ok(locked)
    }

    /// Whether PostgreSQL refused the login and the server's row names another login or password version by now.
    async fn has_new_password(&self, server: &DatabaseServer, error: &ClusterError) -> Result<bool, StepError> {
        match error {
            ClusterError::Connect { source, .. } if sqlstate::is_refused_login(source) => {
                let current = self.servers.server(&server.name).await?.map(|load| load.server);
                Ok(current
                    .is_some_and(|now| (&now.login, now.secret_version) != (&server.login, server.secret_version)))
            }
            _ => Ok(false),
        }
    }

    /// The id of the installation. It never changes, so it is read once per process.
    pub(in crate::cluster) async fn load_installation(&self) -> Result<Uuid, StepError> {
        Ok(*self.installation.get_or_try_init(|| self.servers.installation()).await?)
    }

    async fn load_provisioner_password(&self, server: &DatabaseServer) -> Result<SecretString, VaultError> {
        self.vault.open(&CredentialId::provisioner(&server.name, &server.login, server.secret_version)).await
    }
}

/// The comment on every role of a tenant; it names the installation and the tenant that the role was created for.
fn marker(installation: Uuid, tenant: TenantId) -> String {
    format!("{MARK}{installation} {tenant}")
}

impl WorkerPermits {
    async fn acquire(&self, lane: Lane) -> Result<OwnedSemaphorePermit, StepError> {
        let permits = match lane {
            Lane::Preempt => self.preempting.clone(),
            _ => self.changes.clone(),
        };
        match tokio::time::timeout(PERMIT_TIMEOUT, permits.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(StepError::retry("the worker permits of this process are closed")),
            Err(_) => {
                Err(ClusterError::Deadline { phase: "waiting for a worker permit", limit: PERMIT_TIMEOUT }.into())
            }
        }
    }
}

impl LockedSession {
    /// Opens the session only; the caller checks the epoch and takes the lock.
    pub(in crate::cluster) async fn open(
        server: DatabaseServer, password: SecretString, ownership: Ownership, name: String,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, ClusterError> {
        let session =
            open_provisioner_session(&server, &server.names.maintenance, &password, &name, Purpose::Locked).await?;
        Ok(Self { session, server, password, ownership, name, _permit: permit })
    }

    /// Terminates the sessions of earlier workers, takes the lock, and reverts what a dead worker has left open.
    async fn take_over(&mut self, run: &Execution, key: i64, names: &TenantNames) -> Result<(), StepError> {
        let preempts = run.record().lane == Lane::Preempt;
        let first = run.is_first();
        if !first {
            self.terminate_workers(run.operation()).await?;
        }
        if preempts && let Some(parked) = run.output::<Option<OperationId>>("change.park")?.flatten() {
            self.terminate_workers(parked).await?;
        }
        // A session that still has the lock belongs to an outdated worker: of this operation, or of a change that this
        // preempting operation has parked. The first worker of a change waits instead of terminating the session, which
        // may belong to a preempting operation that is about to end.
        if preempts || !first {
            lock::take_from_outdated_worker(&mut self.session, key, LOCK_TIMEOUT).await?;
        } else {
            lock::take(&mut self.session, key, LOCK_TIMEOUT).await?;
        }
        if !first {
            dependents::close_databases_left_open(&mut self.session, &self.ownership.admin).await?;
            membership::give_back_abandoned(&mut self.session, &self.ownership.admin).await?;
            let (database, migrator) = (&names.database, &names.migrator);
            ensure::refuse_logins(&mut self.session, database, &[migrator], &self.ownership, SETTLING).await?;
        }
        Ok(())
    }

    async fn terminate_workers(&mut self, operation: OperationId) -> Result<(), StepError> {
        Ok(terminate::terminate_worker_sessions(&mut self.session, &format!("tenantry/{operation}/")).await?)
    }
}
