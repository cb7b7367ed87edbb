//! The steps inside the tenant's database: the host's migrations, its first admin, its own steps.
use super::world::World;
use crate::cluster::{ahead, close_ledger, run_migrations, set_defaults};
use crate::error::StepError;
use crate::operations::step::AnyStep;
use crate::saga::{Action, Run};
use async_trait::async_trait;
use futures_util::future::try_join;
use serde_json::{Value, json};
use std::sync::Arc;

/// The host's migrations, as the migrator.
pub(super) struct Migrations;
#[async_trait]
impl Action<World> for Migrations {
    fn name(&self) -> &'static str {
        "migrations.run"
    }
    fn joins_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        let Some(migrator) = world.recipe.migrations else { return Ok(Value::Null) };
        // A migration outside a transaction and its ledger row are two commits: a worker may have died between them.
        // The database is new, so it is made anew rather than guessed about.
        if !run.is_first() && migrator.iter().any(|m| m.no_tx) {
            rebuild(run, world).await?;
        }
        let names = world.site.place().await?.names.clone();
        let (session, hold) = world.site.migrator_and_hold(run).await?;
        let end = ahead(hold.look_ahead(&names, &names.migrator));
        let (version, ()) = try_join(run_migrations(session, migrator, true), end).await?;
        Ok(json!({ "version": version }))
    }
    /// The database goes as a whole.
    async fn undo(&self, _: &Run, _: &mut World) -> Result<(), StepError> {
        Ok(())
    }
}

async fn rebuild(run: &Run, world: &mut World) -> Result<(), StepError> {
    let (names, login) = (world.site.place().await?.names.clone(), world.login().await?);
    let temp = world.recipe.temp_tables;
    let hold = world.site.hold(run).await?;
    hold.remove_database(&names, &[login]).await?;
    hold.ensure_database(&names).await?;
    hold.ensure_access(&names, temp).await?;
    hold.ensure_schema(&names).await?;
    let access = (world.recipe.access, world.recipe.connection_limit);
    let (login, password) = (world.login().await?, world.password().await?);
    world.site.hold(run).await?.ensure_login(&names, &login, access.0, access.1, &password).await?;
    world.site.forget_migrator().await;
    let session = world.site.migrator(run).await?;
    set_defaults(session, &names.roles).await
}

/// The first admin, without a password: the setup link is for that.
pub(super) struct FirstAdmin;
#[async_trait]
impl Action<World> for FirstAdmin {
    fn name(&self) -> &'static str {
        "admin.seed"
    }
    fn joins_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        let Some(email) = world.request.admin.clone() else { return Ok(Value::Null) };
        let admins = world.recipe.admins.clone();
        let app = world.site.place().await?.names.roles.app.clone();
        let session = world.site.migrator(run).await?;
        admins.prepare(session, Some(&app)).await?;
        admins.ensure_admin(session, &email).await?;
        Ok(Value::Null)
    }
    /// The database goes as a whole.
    async fn undo(&self, _: &Run, _: &mut World) -> Result<(), StepError> {
        Ok(())
    }
}

/// The application may read the ledger and not write it.
pub(super) struct CloseLedger;
#[async_trait]
impl Action<World> for CloseLedger {
    fn name(&self) -> &'static str {
        "ledger.close"
    }
    fn joins_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        let Some(migrator) = world.recipe.migrations else { return Ok(Value::Null) };
        let app = world.site.place().await?.names.roles.app.clone();
        let session = world.site.migrator(run).await?;
        close_ledger(session, &migrator.table_name, &app).await?;
        Ok(Value::Null)
    }
    async fn undo(&self, _: &Run, _: &mut World) -> Result<(), StepError> {
        Ok(())
    }
}

/// The migrator lives for one operation.
pub(super) struct DropMigrator;
#[async_trait]
impl Action<World> for DropMigrator {
    fn name(&self) -> &'static str {
        "migrator.drop"
    }
    fn joins_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        world.site.drop_migrator(run).await?;
        Ok(Value::Null)
    }
    async fn undo(&self, _: &Run, _: &mut World) -> Result<(), StepError> {
        Ok(())
    }
}

/// A step of the host's. Recorded before and after: the journal commits around it.
pub(super) struct HostStep {
    pub(super) step: Arc<dyn AnyStep>,
    /// Before the point of no return it has the migrator and can be undone.
    pub(super) before_activation: bool,
}
#[async_trait]
impl Action<World> for HostStep {
    fn name(&self) -> &'static str {
        self.step.name()
    }
    fn joins_previous(&self) -> bool {
        false
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        let cx = world.context(run, self.step.name(), self.before_activation).await?;
        self.step.run(&cx).await
    }
    async fn undo(&self, run: &Run, world: &mut World) -> Result<(), StepError> {
        let output = run.record().outputs.get(self.step.name()).cloned();
        let cx = world.context(run, self.step.name(), self.before_activation).await?;
        self.step.compensate(&cx, output).await
    }
}
