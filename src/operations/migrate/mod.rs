//! Migrates the databases of existing tenants, and compares each tenant's ledger with this program's migrations.
//!
//! A migration is a saga of the change lane: create the migrator login, run the migrations, close the ledger (sqlx's
//! table of applied migrations) to the application, drop the migrator. The facade drives it through `Migration`.
//! Applied migrations are never reverted, and the migrator login exists only during the operation.
use crate::cluster::{OperationContext, require_done};
use crate::error::{ChangeError, StoreError};
use crate::operation::{Lane, OperationId, Subject};
use crate::pool::connect;
use crate::saga::{AnySaga, Engine, Outcome};
use crate::store::journal::{Begun, Intent, Record};
use crate::store::registry::TenantRegistryExt;
use crate::tenant::{Tenant, TenantId, TenantRef, TenantStatus};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::migrate::Migrator;
use sqlx::{ConnectOptions, Connection};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

mod saga;
mod status;
use saga::MigrateSaga;
pub use status::{MigrationState, MigrationStatus};

/// The stored name of the saga.
const KIND: &str = "migrate";
/// Time limit for connecting to a tenant's database and reading its ledger.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A migrated tenant, with its newest applied version before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Migrated {
    /// The tenant, after the migration.
    pub tenant: Tenant,
    /// Newest applied migration version before the operation; `None` if no migration had run.
    pub from: Option<i64>,
    /// Newest applied migration version after the operation; `None` if the program has no migrations.
    pub to: Option<i64>,
}

/// Begins and drives migrations of tenants. It spawns no task: if one of its futures is dropped, the work stops there,
/// and recovery continues it after the lease.
#[derive(Clone)]
pub(crate) struct Migration {
    stores: OperationContext,
    engine: Engine,
    migrations: Option<&'static Migrator>,
    saga: Arc<MigrateSaga>,
}

impl Migration {
    /// Creates the driver of migrations over these stores, with the application's migrations. Without migrations every
    /// call fails with [`ChangeError::NoMigrations`].
    pub(crate) fn new(stores: OperationContext, engine: Engine, migrations: Option<&'static Migrator>) -> Self {
        let saga = Arc::new(MigrateSaga::new(stores.clone(), migrations));
        Self { stores, engine, migrations, saga }
    }
    /// The migration saga, for a [`Recoverer`](crate::saga::Recoverer).
    pub(crate) fn saga(&self) -> Arc<dyn AnySaga> {
        self.saga.clone()
    }

    /// Commits the intent of a new migration, which the caller must then drive, or finds the operation that already has
    /// `key`.
    pub(crate) async fn begin(
        &self, tenant: TenantRef<'_>, key: Option<String>, reason: Option<String>,
    ) -> Result<Begun, ChangeError> {
        let found = self.stores.registry.find(tenant).await?.ok_or(ChangeError::Unknown)?;
        let migrations = self.migrations.ok_or(ChangeError::NoMigrations)?;
        let intent = Intent {
            key,
            reason,
            request: json!({ "tenant": found.id(), "to": crate::cluster::head(migrations) }),
            intended: Engine::first_intent_steps(&*self.saga),
            total: self.saga.len(),
            worker: Uuid::now_v7().to_string(),
            lease: self.engine.settings().lease,
            ..Intent::new(OperationId::new(), KIND, Lane::Change, Subject::Tenant(found.id()))
        };
        if let Some(begun) = self.stores.find_joined(&intent).await? {
            return Ok(begun);
        }
        match found.status() {
            TenantStatus::Active => self.stores.begin(&intent).await,
            found => Err(ChangeError::Status { found }),
        }
    }

    /// Converts the outcome of an operation to the result that the caller gets.
    pub(crate) async fn migrated(&self, outcome: Outcome) -> Result<Migrated, ChangeError> {
        let record = require_done(outcome)?;
        let id: TenantId = record.subject.tenant().ok_or(ChangeError::Unknown)?;
        let tenant = self.stores.registry.find(id.into()).await?.ok_or(ChangeError::Unknown)?;
        Ok(Migrated { tenant, from: stored_version(&record, saga::CREATE), to: stored_version(&record, saga::RUN) })
    }

    /// Compares the tenant's ledger with the migrations of this program. It connects as the application's login, so the
    /// tenant must be active. Connecting and reading may take at most 30 seconds.
    ///
    /// # Errors
    /// [`ChangeError::Status`] if the tenant is not active, [`ChangeError::Unreadable`] if its database does not
    /// answer.
    pub(crate) async fn status(&self, tenant: TenantRef<'_>) -> Result<MigrationStatus, ChangeError> {
        let found = self.stores.registry.find(tenant).await?.ok_or(ChangeError::Unknown)?;
        let migrations = self.migrations.ok_or(ChangeError::NoMigrations)?;
        if found.status() != TenantStatus::Active {
            return Err(ChangeError::Status { found: found.status() });
        }
        let entry = self.stores.registry.primary(found.id()).await?;
        let entry = entry.ok_or_else(|| StoreError::conflict("the tenant has no primary entry in the directory"))?;
        let located = self.stores.locate(entry).await?;
        let entry = located.map_err(|error| ChangeError::UnknownServer { server: error.server.to_string() })?;
        let password = self.stores.vault.open(&entry.credential).await.map_err(StoreError::unavailable)?;
        let read = async {
            let mut session = crate::rt::poll_batched(connect::connect_options(&entry, &password).connect()).await?;
            let ledger = status::read_ledger(migrations, &mut session).await;
            let _ = session.close().await;
            ledger
        };
        let timed_out = |_| ChangeError::Unreadable(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
        let ledger =
            tokio::time::timeout(READ_TIMEOUT, read).await.map_err(timed_out)?.map_err(ChangeError::Unreadable)?;
        Ok(MigrationStatus::compare(migrations, &ledger))
    }
}

/// The version that a step of the saga has stored as its output.
fn stored_version(record: &Record, step: &str) -> Option<i64> {
    record.outputs.get(step)?.get("version")?.as_i64()
}
