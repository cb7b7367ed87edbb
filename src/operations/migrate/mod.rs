//! Migrations of tenants that exist: a saga of the `change` lane (migrator → migrations → ledger → migrator gone), and
//! what each tenant's ledger says.
use crate::cluster::{OperationContext, ended};
use crate::error::{ChangeError, StoreError};
use crate::operation::{Lane, OperationId, Subject};
use crate::pool::connect;
use crate::saga::{AnySaga, Engine, Observer, Outcome};
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
/// For reading a ledger.
const READ: Duration = Duration::from_secs(30);

/// What a migration did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Migrated {
    /// The tenant.
    pub tenant: Tenant,
    /// The newest version before; `None`: no migration had run.
    pub from: Option<i64>,
    /// The newest version now.
    pub to: Option<i64>,
}

/// Migrates tenants that exist. It spawns nothing: dropping one of its futures is like the death of the process.
#[derive(Clone)]
pub struct Migration {
    stores: OperationContext,
    engine: Engine,
    migrations: Option<&'static Migrator>,
    saga: Arc<MigrateSaga>,
}

impl Migration {
    /// Over these stores, with the host's migrations; without them every call is [`ChangeError::NoMigrations`].
    pub fn new(stores: OperationContext, engine: Engine, migrations: Option<&'static Migrator>) -> Self {
        let saga = Arc::new(MigrateSaga::new(stores.clone(), migrations));
        Self { stores, engine, migrations, saga }
    }
    /// The saga, for a [`Recoverer`](crate::saga::Recoverer).
    pub fn saga(&self) -> Arc<dyn AnySaga> {
        self.saga.clone()
    }

    /// Begins and drives it to its end. With a key that is known, waits for that operation instead.
    ///
    /// # Errors
    /// A migration that fails leaves those before it applied, in their own transactions: [`status`](Self::status) tells.
    ///
    /// # Cancel safety
    /// Before the intent's commit nothing has happened; after it recovery goes on.
    pub async fn migrate(&self, tenant: TenantRef<'_>, observer: &Observer) -> Result<Migrated, ChangeError> {
        match self.begin(tenant, None, None).await? {
            Begun::New(record) => self.migrated(self.engine.drive(&*self.saga, *record, true, observer).await?).await,
            Begun::Joined(record) => self.migrated(Outcome::of(self.stores.wait(record.id).await?)).await,
            Begun::KeyReused(operation) => Err(ChangeError::KeyReused { operation }),
            Begun::Busy(operation) => Err(ChangeError::Busy { operation }),
        }
    }

    /// Commits the intent, under which the caller then holds the operation, or finds the one that has its key.
    pub async fn begin(
        &self, tenant: TenantRef<'_>, key: Option<String>, reason: Option<String>,
    ) -> Result<Begun, ChangeError> {
        let found = self.stores.registry.find(tenant).await?.ok_or(ChangeError::Unknown)?;
        let migrations = self.migrations.ok_or(ChangeError::NoMigrations)?;
        let intent = Intent {
            key,
            reason,
            request: json!({ "tenant": found.id(), "to": crate::cluster::head(migrations) }),
            intended: Engine::first_intent(&*self.saga),
            total: self.saga.len(),
            worker: Uuid::now_v7().to_string(),
            lease: self.engine.settings().lease,
            ..Intent::new(OperationId::new(), KIND, Lane::Change, Subject::Tenant(found.id()))
        };
        if let Some(begun) = self.stores.known(&intent).await? {
            return Ok(begun);
        }
        match found.status() {
            TenantStatus::Active => self.stores.begin(&intent).await,
            found => Err(ChangeError::Status { found }),
        }
    }

    /// What an operation's end means to its caller.
    pub async fn migrated(&self, outcome: Outcome) -> Result<Migrated, ChangeError> {
        let record = ended(outcome)?;
        let id: TenantId = record.subject.tenant().ok_or(ChangeError::Unknown)?;
        let tenant = self.stores.registry.find(id.into()).await?.ok_or(ChangeError::Unknown)?;
        Ok(Migrated { tenant, from: version(&record, saga::CREATE), to: version(&record, saga::RUN) })
    }

    /// What the tenant's ledger says, against the migrations of this program. Reads with the application's login, so
    /// only of an active tenant.
    ///
    /// # Errors
    /// A tenant that is refused is [`ChangeError::Status`]; one that cannot be reached is [`ChangeError::Unreadable`].
    pub async fn status(&self, tenant: TenantRef<'_>) -> Result<MigrationStatus, ChangeError> {
        let found = self.stores.registry.find(tenant).await?.ok_or(ChangeError::Unknown)?;
        let migrations = self.migrations.ok_or(ChangeError::NoMigrations)?;
        if found.status() != TenantStatus::Active {
            return Err(ChangeError::Status { found: found.status() });
        }
        let entry = self.stores.registry.primary(found.id()).await?;
        let entry = entry.ok_or_else(|| StoreError::conflict("the tenant has no directory entry"))?;
        let located = self.stores.locate(entry).await?;
        let entry = located.map_err(|error| ChangeError::UnknownServer { server: error.server.to_string() })?;
        let password = self.stores.vault.open(&entry.credential).await.map_err(StoreError::unavailable)?;
        let read = async {
            let mut session = crate::rt::poll_batched(connect::options(&entry, &password).connect()).await?;
            let ledger = status::ledger(migrations, &mut session).await;
            let _ = session.close().await;
            ledger
        };
        let late = |_| ChangeError::Unreadable(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
        let ledger = tokio::time::timeout(READ, read).await.map_err(late)?.map_err(ChangeError::Unreadable)?;
        Ok(MigrationStatus::compare(migrations, &ledger))
    }
}

fn version(record: &Record, step: &str) -> Option<i64> {
    record.outputs.get(step)?.get("version")?.as_i64()
}
