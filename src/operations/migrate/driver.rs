//! Begins migrations, reads their results, and compares a tenant's ledger with the migrations of this program.
//!
//! The facade makes a [`Migrate`] and begins it through the [`Migration`] of the process.
use super::context::MigrateContext;
use super::status::{MigrationStatus, read_ledger};
use super::{Migrated, saga, steps};
use crate::cluster::{OperationContext, require_done};
use crate::error::{ChangeError, StoreError};
use crate::operation::Subject;
use crate::operations::verb::{CallVerb, require_active};
use crate::pool::connect;
use crate::saga::{AnySaga, CallOptions, Engine, Outcome, Saga, Started};
use crate::store::journal::Record;
use crate::store::registry::TenantRegistry;
use crate::tenant::{TenantId, TenantRef};
use async_trait::async_trait;
use serde_json::json;
use sqlx::migrate::Migrator;
use sqlx::{ConnectOptions, Connection};
use std::{sync::Arc, time::Duration};

/// Time limit for connecting to a tenant's database and reading its ledger.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Type parameter of `Call` for [`migrate`](crate::Tenantry::migrate); not used directly.
pub struct Migrate(TenantRef<'static>);
impl Migrate {
    pub(crate) fn new(tenant: TenantRef<'_>) -> Self {
        Self(tenant.into_owned())
    }
}

#[async_trait]
impl CallVerb for Migrate {
    type Driver = Migration;
    type Answer = Migrated;
    type Error = ChangeError;
    async fn begin(self, driver: &Migration, options: &CallOptions) -> Result<Started, ChangeError> {
        let Migration { stores, engine, migrations, saga } = driver;
        let found = stores.registry.find(self.0).await?.ok_or(ChangeError::Unknown)?;
        let migrations = migrations.ok_or(ChangeError::NoMigrations)?;
        let request = json!({ "tenant": found.id(), "to": crate::cluster::head(migrations) });
        let intent = engine.intent(saga, Subject::Tenant(found.id()), &request, options)?;
        engine.begin(saga, &intent, async { require_active(&found) }).await
    }
    async fn answer(driver: &Migration, outcome: Outcome) -> Result<Migrated, ChangeError> {
        let record = require_done(outcome)?;
        let id: TenantId = record.subject.tenant().ok_or(ChangeError::Unknown)?;
        let tenant = driver.stores.registry.find(id.into()).await?.ok_or(ChangeError::Unknown)?;
        Ok(Migrated { tenant, from: stored_version(&record, steps::CREATE), to: stored_version(&record, steps::RUN) })
    }
}

/// Begins migrations of tenants and reads their results. It spawns no task: if one of its futures is dropped, the work
/// stops there, and recovery continues it after the lease.
#[derive(Clone)]
pub struct Migration {
    stores: OperationContext,
    engine: Engine,
    migrations: Option<&'static Migrator>,
    saga: Arc<Saga<MigrateContext>>,
}

impl Migration {
    /// Creates the driver of migrations over these stores, with the application's migrations. Without migrations every
    /// call fails with [`ChangeError::NoMigrations`].
    pub(crate) fn new(stores: OperationContext, engine: Engine, migrations: Option<&'static Migrator>) -> Self {
        let saga = Arc::new(saga::define(stores.clone(), migrations));
        Self { stores, engine, migrations, saga }
    }
    /// The migration saga, for a [`Recoverer`](crate::saga::Recoverer).
    pub(crate) fn saga(&self) -> Arc<dyn AnySaga> {
        self.saga.clone()
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
        require_active(&found)?;
        let entry = self.stores.registry.primary(found.id()).await?;
        let entry = entry.ok_or_else(|| StoreError::conflict("the tenant has no primary entry in the directory"))?;
        let located = self.stores.locate(entry).await?;
        let entry = located.map_err(|error| ChangeError::UnknownServer { server: error.server.to_string() })?;
        let password = self.stores.vault.open(&entry.credential).await.map_err(StoreError::unavailable)?;
        let read = async {
            let mut session = crate::rt::poll_batched(connect::connect_options(&entry, &password).connect()).await?;
            let ledger = read_ledger(migrations, &mut session).await;
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
