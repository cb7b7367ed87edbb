use super::KIND;
use super::status::ledger;
use crate::cluster::{Site, Workshop, close_ledger, run_migrations};
use crate::error::{ChangeError, StepError};
use crate::saga::{Action, Run, Saga};
use crate::store::journal::LOGINS;
use crate::tenant::TenantStatus;
use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::migrate::Migrator;

/// The stored names of the steps that answer with a version.
pub(super) const CREATE: &str = "migrator.create";
pub(super) const RUN: &str = "migrations.run";

/// The plain list of a migration's steps.
pub(crate) struct MigrateSaga {
    shop: Workshop,
    migrations: Option<&'static Migrator>,
    steps: Vec<Box<dyn Action<World>>>,
}

pub(crate) struct World {
    shop: Workshop,
    site: Site,
    migrations: &'static Migrator,
}

impl MigrateSaga {
    pub(super) fn new(shop: Workshop, migrations: Option<&'static Migrator>) -> Self {
        let steps = [Migrate::Create, Migrate::Run, Migrate::CloseLedger, Migrate::Drop];
        Self { shop, migrations, steps: steps.map(|s| Box::new(s) as Box<dyn Action<World>>).into() }
    }
    pub(super) fn len(&self) -> u32 {
        self.steps.len() as u32
    }
}

impl Saga for MigrateSaga {
    type World = World;
    fn kind(&self) -> &'static str {
        KIND
    }
    fn steps(&self) -> &[Box<dyn Action<World>>] {
        &self.steps
    }
    /// What has migrated is not taken back: from the ledger on it only goes forward.
    fn no_return(&self) -> usize {
        2
    }
    fn world(&self, run: &Run) -> Result<World, StepError> {
        let none = || StepError::park("this program has no tenant migrations; a newer one goes on with it");
        Ok(World {
            shop: self.shop.clone(),
            site: Site::new(self.shop.clone(), run)?,
            migrations: self.migrations.ok_or_else(none)?,
        })
    }
}

#[derive(Clone, Copy)]
enum Migrate {
    /// The login that runs migrations; the answer is the version that it finds.
    Create,
    /// The host's migrations. One that runs in a transaction is there or not, so it may be asked for again; of the others
    /// the ledger tells.
    Run,
    /// The application may read the ledger and not write it.
    CloseLedger,
    /// The migrator lives for one operation.
    Drop,
}

#[async_trait]
impl Action<World> for Migrate {
    fn name(&self) -> &'static str {
        match self {
            Self::Create => CREATE,
            Self::Run => RUN,
            Self::CloseLedger => "ledger.close",
            Self::Drop => "migrator.drop",
        }
    }
    fn joins_previous(&self) -> bool {
        !matches!(self, Self::CloseLedger)
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        let migrations = world.migrations;
        match self {
            Self::Create => {
                only_active(world).await?;
                let session = world.site.migrator(run).await?;
                let newest = ledger(migrations, session).await?.last().map(|row| row.0);
                Ok(json!({ "version": newest, LOGINS: [&world.site.place().await?.names.migrator] }))
            }
            Self::Run => {
                let session = world.site.migrator(run).await?;
                let ran = run_migrations(session, migrations, false).await;
                Ok(json!({ "version": shut_if_parked(run, world, ran).await? }))
            }
            Self::CloseLedger => {
                let app = world.site.place().await?.names.roles.app.clone();
                let session = world.site.migrator(run).await?;
                close_ledger(session, &migrations.table_name, &app).await?;
                Ok(Value::Null)
            }
            Self::Drop => world.site.drop_migrator(run).await.map(|()| Value::Null),
        }
    }
    /// What has been applied stays, in transactions of its own; the migrator goes.
    async fn undo(&self, run: &Run, world: &mut World) -> Result<(), StepError> {
        match self {
            Self::Create => world.site.drop_migrator(run).await,
            _ => Ok(()),
        }
    }
}

/// It was active before the lane was taken, and a fence may have ended in between.
async fn only_active(world: &World) -> Result<(), StepError> {
    match world.shop.registry.find(world.site.tenant().into()).await? {
        Some(tenant) if tenant.status() == TenantStatus::Active => Ok(()),
        Some(tenant) => Err(StepError::fail(ChangeError::Status { found: tenant.status() })),
        None => Err(StepError::fail(ChangeError::Unknown)),
    }
}

/// A parked operation may wait for days: nobody comes in by its migrator meanwhile.
async fn shut_if_parked<T>(run: &Run, world: &mut World, ran: Result<T, StepError>) -> Result<T, StepError> {
    if ran.as_ref().is_err_and(StepError::is_park) {
        let names = world.site.place().await?.names.clone();
        world.site.hold(run).await?.refuse(&names, &[]).await?;
    }
    ran
}
