//! A worker at a PostgreSQL server: the sessions of one operation, behind its fences.
//!
//! A worker opens its session, *then* asks whether its epoch is the newest, *then* acts. A successor raises the epoch
//! first, and then ends the sessions it finds: so a session that it did not find belongs to a worker that will ask.
use crate::cluster::pg::scram::{self, Verifier};
use crate::error::{StepError, StoreError};
use crate::names::{DatabaseName, RoleName};
use crate::operation::{FencingToken, OperationId};
use crate::saga::Execution;
use crate::server::DatabaseServer;
use crate::store::journal::{Journal, Record};
use crate::store::registry::{RegistryWriter, ServerRegistry};
use crate::store::tokens::TokenStore;
use crate::store::vault::VaultWriter;
use secrecy::SecretString;
use std::{collections::HashMap, sync::Arc, sync::Mutex, time::Duration};
use tokio::sync::{OnceCell, Semaphore};
use uuid::Uuid;

mod address;
mod locked_session;
mod login_target;
mod migrations;
pub(crate) mod pg;
mod preconnecting;
mod tenant_sessions;
#[cfg(test)]
#[cfg(all(unix, feature = "testing"))]
mod tests;
mod verb;
pub(crate) use locked_session::{Closed, LockedSession, RetiredLogin, Standby, close_ledger, set_defaults};
pub(crate) use login_target::LoginTarget;
pub(crate) use migrations::{head, run_migrations};
use preconnecting::Preconnecting;
pub(crate) use tenant_sessions::{TenantLocation, TenantSessions};
pub(crate) use verb::ended;

/// The stores that operations write to. Cheap to clone.
#[derive(Clone)]
pub struct OperationContext {
    pub(crate) registry: Arc<dyn RegistryWriter>,
    pub(crate) servers: Arc<dyn ServerRegistry>,
    pub(crate) vault: Arc<dyn VaultWriter>,
    pub(crate) tokens: Arc<dyn TokenStore>,
    pub(crate) journal: Arc<dyn Journal>,
    permits: Arc<Mutex<HashMap<String, Arc<WorkerPermits>>>>,
    preconnecting_by_operation: Arc<Mutex<HashMap<OperationId, Preconnecting>>>,
    installation: Arc<OnceCell<Uuid>>,
    workers: usize,
}

/// Suspensions and other preempting operations of this process at work on one server. They wait for a tenant's sessions to
/// end, which a hostile tenant can draw out; several at once, so that it does not delay those of other tenants.
const PREEMPTING: usize = 16;

/// Connections of this process's workers to one server: small, so that provisioning never starves applications. A hold
/// takes all that it needs at once and waits for none while it has one; fences have [`PREEMPTING`] of their own, so that
/// they never queue behind changes.
pub(crate) struct WorkerPermits {
    changes: Arc<Semaphore>,
    fences: Arc<Semaphore>,
}

impl OperationContext {
    /// Over these stores, with at most eight operations of this process at work on one server.
    pub fn new(
        registry: Arc<dyn RegistryWriter>, servers: Arc<dyn ServerRegistry>, vault: Arc<dyn VaultWriter>,
        tokens: Arc<dyn TokenStore>, journal: Arc<dyn Journal>,
    ) -> Self {
        Self {
            registry,
            servers,
            vault,
            tokens,
            journal,
            permits: Arc::default(),
            preconnecting_by_operation: Arc::default(),
            installation: Arc::default(),
            workers: 8,
        }
    }
    /// At most this many operations of this process at work on one server, at least one.
    pub fn with_workers(self, workers: usize) -> Self {
        Self { workers: workers.max(1), ..self }
    }

    fn permits_on(&self, server: &str) -> Result<Arc<WorkerPermits>, StepError> {
        let mut permits = self.permits.lock().map_err(|_| StepError::retry("a worker of this process has panicked"))?;
        let new = || WorkerPermits {
            changes: Arc::new(Semaphore::new(self.workers)),
            fences: Arc::new(Semaphore::new(PREEMPTING)),
        };
        Ok(permits.entry(server.into()).or_insert_with(|| Arc::new(new())).clone())
    }

    /// From now on no store takes a write of an older epoch. A host's own store knows no epoch but what it is told.
    pub(crate) async fn fence(&self, newest: FencingToken) -> Result<(), StepError> {
        let FencingToken { operation, epoch } = newest;
        RegistryWriter::fence(&*self.registry, operation, epoch).await?;
        ServerRegistry::fence(&*self.servers, operation, epoch).await?;
        self.vault.fence(operation, epoch).await?;
        Ok(self.tokens.fence(operation, epoch).await?)
    }

    /// Waits until an operation has ended or waits itself, by asking the journal: 20 ms at first, 500 ms at most.
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

impl std::fmt::Debug for OperationContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workshop").field("workers", &self.workers).finish_non_exhaustive()
    }
}

impl DatabaseServer {
    /// A way into one of its databases.
    pub(crate) fn login_target(&self, database: &DatabaseName, role: &RoleName, password: SecretString) -> LoginTarget {
        LoginTarget::new(self.clone(), database.clone(), role.clone(), password)
    }
}

/// A password, and what the server gets of it.
pub(crate) type Kept = (Verifier, SecretString);

/// With what the server gets of it.
pub(crate) async fn verified(password: SecretString) -> Kept {
    (scram::verifier(&password).await, password)
}
/// A new one, which is stored nowhere; its verifier is being made.
pub(crate) struct Fresh {
    pub(crate) password: SecretString,
    making: scram::Making,
}
impl Fresh {
    pub(crate) fn new() -> Self {
        let password = scram::password();
        Self { making: scram::make(&password), password }
    }
    pub(crate) async fn made(self) -> Kept {
        (self.making.made().await, self.password)
    }
}

/// For what is only got ready while something else is waited for: if it fails, whoever needs it will say so.
pub(crate) async fn prefetch<T>(readied: impl Future<Output = T>) -> Result<(), StepError> {
    readied.await;
    Ok(())
}

/// What `pg_stat_activity` shows of a worker's sessions, and by which a successor finds them.
pub(crate) fn application_name(run: &Execution) -> String {
    session_name(run.operation(), run.fencing_token().epoch)
}
fn session_name(operation: OperationId, epoch: i64) -> String {
    format!("tenantry/{operation}/{epoch}")
}
