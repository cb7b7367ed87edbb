//! Begins migrations, reads their results, and compares a tenant's ledger with the migrations of this program.
//!
//! The facade makes a [`Migrate`] and begins it through the [`Migration`] of the process.
use super::context::MigrateContext;
use super::steps::{self, LedgerBefore};
use super::{Migrated, Request, saga};
use crate::cluster::{MigrationStatus, OperationContext, read_ledger, require_done};
use crate::error::{ChangeError, StoreError};
use crate::operation::Subject;
use crate::operations::managed::{find_primary, require_built, require_managed};
use crate::operations::verb::{CallVerb, require_active};
use crate::pool::connect;
use crate::saga::{AnySaga, CallOptions, Engine, Outcome, Saga, Started};
use crate::store::journal::Record;
use crate::store::registry::TenantRegistry;
use crate::tenant::{TenantId, TenantRef};
use async_trait::async_trait;
use sqlx::migrate::Migrator;
use sqlx::{ConnectOptions, Connection};
use std::{sync::Arc, time::Duration};

/// Time limit for connecting to a tenant's database and reading its ledger.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Type parameter of `Call` for [`migrate`](crate::Tenantry::migrate); not used directly.
pub struct Migrate {
    tenant: TenantRef<'static>,
    /// Whether the tenant may be suspended.
    pub(crate) suspended: bool,
}
impl Migrate {
    pub(crate) fn new(tenant: TenantRef<'_>) -> Self {
        Self { tenant: tenant.into_owned(), suspended: false }
    }
}

#[async_trait]
impl CallVerb for Migrate {
    type Driver = Migration;
    type Answer = Migrated;
    type Error = ChangeError;
    async fn begin(self, driver: &Migration, options: &CallOptions) -> Result<Started, ChangeError> {
        let Migration { stores, engine, migrations, saga } = driver;
        let found = stores.registry.find(self.tenant).await?.ok_or(ChangeError::Unknown)?;
        let to = crate::cluster::head(migrations.ok_or(ChangeError::NoMigrations)?);
        let request = Request { tenant: found.id(), to, suspended: self.suspended };
        let intent = engine.intent(saga, Subject::Tenant(found.id()), &request, options)?;
        let check = async {
            request.check_status(&found)?;
            require_managed(stores, found.id()).await
        };
        engine.begin(saga, &intent, check).await
    }
    async fn answer(driver: &Migration, outcome: Outcome) -> Result<Migrated, ChangeError> {
        let record = require_done(outcome)?;
        let id: TenantId = record.subject.tenant().ok_or(ChangeError::Unknown)?;
        let tenant = driver.stores.registry.find(id.into()).await?.ok_or(ChangeError::Unknown)?;
        let before = record.outputs.get(steps::CREATE).cloned().unwrap_or_default();
        let LedgerBefore { version, pending, .. } = serde_json::from_value(before).map_err(StoreError::corrupt)?;
        Ok(Migrated { tenant, from: version, to: newest_after(&record), applied: pending })
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
    /// [`ChangeError::Status`] if the tenant is not active, [`ChangeError::NoEntry`] or [`ChangeError::NotBuilt`] if its
    /// directory has no primary entry that can be connected to, [`ChangeError::Unreadable`] if its database does not
    /// answer.
    pub(crate) async fn status(&self, tenant: TenantRef<'_>) -> Result<MigrationStatus, ChangeError> {
        let found = self.stores.registry.find(tenant).await?.ok_or(ChangeError::Unknown)?;
        let migrations = self.migrations.ok_or(ChangeError::NoMigrations)?;
        require_active(&found)?;
        let entries = self.stores.registry.databases(found.id()).await?;
        let entry = find_primary(&entries).cloned().ok_or(ChangeError::NoEntry)?;
        require_built(&entry)?;
        let located = self.stores.locate(entry).await?;
        let entry = located.map_err(|error| ChangeError::UnknownServer { server: error.server.to_string() })?;
        let password = self.stores.vault.open(&entry.credential).await.map_err(StoreError::from)?;
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

/// The newest version after the migrations, as their step has stored it.
fn newest_after(record: &Record) -> Option<i64> {
    record.outputs.get(steps::RUN)?.get("version")?.as_i64()
}
