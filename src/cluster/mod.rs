//! Everything that an operation does on a PostgreSQL server: its sessions, its locks and its SQL.
//!
//! The sagas in `operations` hold an [`OperationContext`] (the stores) and a [`TenantSessions`] (one worker's
//! sessions); a [`LockedSession`] offers the cluster statements as methods. Two rules keep an outdated worker from
//! changing a server:
//!
//! - A worker opens its session, *then* checks that its epoch is the newest, *then* acts. A new worker raises the epoch
//!   first and then terminates the sessions that it finds. A session that it missed was opened after the epoch was
//!   raised, so the check of the old worker fails.
//! - The session that runs the statements also has the advisory lock of the tenant. If the connection breaks,
//!   PostgreSQL releases the lock and the worker can run no further statement.
use crate::error::{StepError, StoreError};
use crate::names::{DatabaseName, RoleName};
use crate::operation::{FencingToken, OperationId};
use crate::saga::{EpochFence, Execution};
use crate::server::{AddressPolicy, DatabaseServer};
use crate::store::journal::{Journal, Record};
use crate::store::registry::{RegistryWriter, ServerRegistry};
use crate::store::tokens::TokenStore;
use crate::store::vault::VaultWriter;
use async_trait::async_trait;
use secrecy::SecretString;
use std::{collections::HashMap, sync::Arc, sync::Mutex, time::Duration};
use tokio::sync::{OnceCell, Semaphore};
use uuid::Uuid;

mod address;
mod generated_password;
mod ledger;
mod locked_session;
mod login_target;
mod migrations;
mod observer;
mod outcome;
pub(crate) mod pg;
mod preconnecting;
pub(crate) mod schema_state;
mod tenant_sessions;
#[cfg(test)]
#[cfg(all(unix, feature = "testing"))]
mod tests;
mod verified_servers;
pub(crate) use generated_password::GeneratedPassword;
pub(crate) use ledger::{LedgerObstacle, find_obstacle, read_ledger};
pub use ledger::{MigrationState, MigrationStatus};
pub(crate) use locked_session::{
    Closed, LockedSession, RetiredLogin, Standby, TemporaryRights, close_ledger, set_defaults,
};
pub(crate) use login_target::LoginTarget;
pub(crate) use migrations::{head, is_migration_lock_held, run_migrations, run_migrations_in_new_database};
pub(crate) use observer::{APPLICATION as DOCTOR, Observer};
pub(crate) use outcome::require_done;
use preconnecting::Preconnecting;
pub(crate) use tenant_sessions::{TenantLocation, TenantSessions};
use verified_servers::VerifiedServers;

/// The stores that operations write to. Cheap to clone.
#[derive(Clone)]
pub struct OperationContext {
    pub(crate) registry: Arc<dyn RegistryWriter>,
    /// The registry of servers, which returns no row that is not trusted.
    pub(crate) servers: Arc<dyn ServerRegistry>,
    /// The same registry, for the operations that write addresses.
    pub(crate) verified: VerifiedServers,
    pub(crate) vault: Arc<dyn VaultWriter>,
    pub(crate) tokens: Arc<dyn TokenStore>,
    pub(crate) journal: Arc<dyn Journal>,
    permits: Arc<Mutex<HashMap<String, Arc<WorkerPermits>>>>,
    installation: Arc<OnceCell<Uuid>>,
    workers: usize,
}

/// Maximum number of preempting operations (suspend, archive, purge) of this process that work on one server at a time.
/// Each waits for a tenant's sessions to end, which a hostile tenant can delay. With several permits such a tenant does
/// not delay the suspension of another one.
const PREEMPTING_PERMITS: usize = 16;

/// Permits for the locked sessions of this process on one server. Their number is small, so that provisioning leaves
/// connections for applications. A worker takes one permit for all its sessions on the server and never waits for a
/// second one, so workers cannot deadlock. Preempting operations have [`PREEMPTING_PERMITS`] of their own and never
/// queue behind changes.
pub(crate) struct WorkerPermits {
    changes: Arc<Semaphore>,
    preempting: Arc<Semaphore>,
}

impl OperationContext {
    /// Creates the context of the operations that use these stores. At most eight changes of this process work on one
    /// server at a time; [`with_workers`](Self::with_workers) sets another number.
    pub fn new(
        registry: Arc<dyn RegistryWriter>, servers: Arc<dyn ServerRegistry>, vault: Arc<dyn VaultWriter>,
        tokens: Arc<dyn TokenStore>, journal: Arc<dyn Journal>,
    ) -> Self {
        let verified = VerifiedServers::new(servers, vault.clone(), AddressPolicy::default());
        Self {
            registry,
            servers: Arc::new(verified.clone()),
            verified,
            vault,
            tokens,
            journal,
            permits: Arc::default(),
            installation: Arc::default(),
            workers: 8,
        }
    }
    /// Sets which addresses in the landlord this process may connect to. The default allows all that are authenticated.
    pub(crate) fn with_address_policy(self, policy: AddressPolicy) -> Self {
        let verified = self.verified.with_policy(policy);
        Self { servers: Arc::new(verified.clone()), verified, ..self }
    }
    /// Sets how many changes of this process may work on one server at a time; 0 counts as 1. Suspensions, archivals
    /// and purges have permits of their own.
    pub fn with_workers(self, workers: usize) -> Self {
        Self { workers: workers.max(1), ..self }
    }

    fn permits_on(&self, server: &str) -> Result<Arc<WorkerPermits>, StepError> {
        let mut permits = self.permits.lock().map_err(|_| StepError::retry("a worker of this process has panicked"))?;
        let new = || WorkerPermits {
            changes: Arc::new(Semaphore::new(self.workers)),
            preempting: Arc::new(Semaphore::new(PREEMPTING_PERMITS)),
        };
        Ok(permits.entry(server.into()).or_insert_with(|| Arc::new(new())).clone())
    }

    /// Makes every store reject writes of this operation with an older epoch. A store that the application implements
    /// learns about the new epoch only by this call.
    pub(crate) async fn fence(&self, newest: FencingToken) -> Result<(), StepError> {
        Ok(EpochFence::fence(self, newest.operation, newest.epoch).await?)
    }

    /// Waits until the operation has ended, is parked or waits for a retry, and returns its record. Polls the journal
    /// with pauses that grow from 20 ms to 500 ms. Never times out.
    ///
    /// # Errors
    /// `Conflict` if the journal has no such operation.
    pub(crate) async fn wait(&self, id: OperationId) -> Result<Record, StoreError> {
        let mut pause = Duration::from_millis(20);
        loop {
            let record = self.journal.read(id).await?.ok_or_else(|| StoreError::conflict("no such operation"))?;
            if record.is_settled() {
                return Ok(record);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_millis(500));
        }
    }
}

#[async_trait]
impl EpochFence for OperationContext {
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError> {
        RegistryWriter::fence(&*self.registry, operation, epoch).await?;
        ServerRegistry::fence(&*self.servers, operation, epoch).await?;
        self.vault.fence(operation, epoch).await.map_err(StoreError::from)?;
        self.tokens.fence(operation, epoch).await
    }
}

impl std::fmt::Debug for OperationContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OperationContext").field("workers", &self.workers).finish_non_exhaustive()
    }
}

impl DatabaseServer {
    /// Returns the target for logging in to one of this server's databases as `role`. Opens nothing.
    pub(crate) fn login_target(&self, database: &DatabaseName, role: &RoleName, password: SecretString) -> LoginTarget {
        LoginTarget::new(self.clone(), database.clone(), role.clone(), password)
    }
}

/// The `application_name` of a worker's sessions, `tenantry/<operation>/<epoch>`. A new worker of the operation finds
/// the sessions of earlier workers by it.
pub(crate) fn application_name(run: &Execution) -> String {
    session_name(run.operation(), run.fencing_token().epoch)
}
fn session_name(operation: OperationId, epoch: i64) -> String {
    format!("tenantry/{operation}/{epoch}")
}
