//! The steps of a provisioning inside the tenant's database: migrations, the tenant's first admin, the application's
//! own steps, and the drop of the migrator login.
//!
//! The saga runs them after the steps of `cluster.rs`. Their undo does nothing, because the undo of `roles.create`
//! drops the whole database; only the application's steps have a compensation of their own.
use crate::cluster::{close_ledger, run_migrations_in_new_database, set_defaults};
use crate::error::StepError;
use crate::operations::provision::context::ProvisionContext;
use crate::operations::step::AnyStep;
use crate::saga::{Execution, SagaStep};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::sync::Arc;

/// Runs the application's migrations as the migrator.
pub(in crate::operations::provision) struct Migrations;
#[async_trait]
impl SagaStep<ProvisionContext> for Migrations {
    fn name(&self) -> &'static str {
        "migrations.run"
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut ProvisionContext) -> Result<Value, StepError> {
        let Some(migrator) = context.config.migrations else { return Ok(Value::Null) };
        // A migration outside a transaction and its ledger row are two commits, and an earlier worker may have died
        // between them. The database is new and holds no data yet, so drop it and create it again.
        if !run.is_first() && migrator.iter().any(|m| m.no_tx) {
            recreate_database(run, context).await?;
        }
        let session = context.sessions.migrator(run).await?;
        Ok(json!({ "version": run_migrations_in_new_database(session, migrator).await? }))
    }
    /// Nothing to do: the undo of `roles.create` drops the database.
    async fn undo(&self, _: &Execution, _: &mut ProvisionContext) -> Result<(), StepError> {
        Ok(())
    }
}

/// Drops the tenant's database and repeats all steps up to the migrations.
async fn recreate_database(run: &Execution, context: &mut ProvisionContext) -> Result<(), StepError> {
    let (names, login) = (context.sessions.location().await?.names.clone(), context.login().await?);
    let temp = context.config.temp_tables;
    let locked = context.sessions.locked_session(run).await?;
    locked.remove_database(&names, &[login]).await?;
    locked.ensure_database(&names).await?;
    locked.ensure_access(&names, temp).await?;
    locked.ensure_schema(&names).await?;
    context.ensure_login(run).await?;
    context.sessions.forget_migrator().await;
    let session = context.sessions.migrator(run).await?;
    set_defaults(session, &names.roles).await
}

/// Adds the first admin to the tenant's users, without a password. The setup link lets the admin set one.
pub(in crate::operations::provision) struct FirstAdmin;
#[async_trait]
impl SagaStep<ProvisionContext> for FirstAdmin {
    fn name(&self) -> &'static str {
        "admin.seed"
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut ProvisionContext) -> Result<Value, StepError> {
        let Some(email) = context.request.admin.clone() else { return Ok(Value::Null) };
        let admins = context.config.admins.clone();
        let app = context.sessions.location().await?.names.roles.app.clone();
        let session = context.sessions.migrator(run).await?;
        admins.prepare(session, Some(&app)).await?;
        admins.ensure_admin(session, &email).await?;
        Ok(Value::Null)
    }
    /// Nothing to do: the undo of `roles.create` drops the database.
    async fn undo(&self, _: &Execution, _: &mut ProvisionContext) -> Result<(), StepError> {
        Ok(())
    }
}

/// Lets the application read the ledger but not write it.
pub(in crate::operations::provision) struct CloseLedger;
#[async_trait]
impl SagaStep<ProvisionContext> for CloseLedger {
    fn name(&self) -> &'static str {
        "ledger.close"
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut ProvisionContext) -> Result<Value, StepError> {
        let Some(migrator) = context.config.migrations else { return Ok(Value::Null) };
        let app = context.sessions.location().await?.names.roles.app.clone();
        let session = context.sessions.migrator(run).await?;
        close_ledger(session, &migrator.table_name, &app).await?;
        Ok(Value::Null)
    }
    async fn undo(&self, _: &Execution, _: &mut ProvisionContext) -> Result<(), StepError> {
        Ok(())
    }
}

/// Drops the migrator login, which has the rights of the database's owner, before the tenant is published.
pub(in crate::operations::provision) struct DropMigrator;
#[async_trait]
impl SagaStep<ProvisionContext> for DropMigrator {
    fn name(&self) -> &'static str {
        "migrator.drop"
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut ProvisionContext) -> Result<Value, StepError> {
        context.sessions.drop_migrator(run).await?;
        Ok(Value::Null)
    }
    async fn undo(&self, _: &Execution, _: &mut ProvisionContext) -> Result<(), StepError> {
        Ok(())
    }
}

/// A step of the application before activation. It has an intent of its own, because its effects may be outside the
/// database: the journal commits before the step runs.
pub(in crate::operations::provision) struct HostStep(pub(in crate::operations::provision) Arc<dyn AnyStep>);
#[async_trait]
impl SagaStep<ProvisionContext> for HostStep {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn shares_intent_with_previous(&self) -> bool {
        false
    }
    fn is_skippable(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut ProvisionContext) -> Result<Value, StepError> {
        let cx = context.step_context(run, self.0.name()).await?;
        self.0.run(&cx).await
    }
    async fn undo(&self, run: &Execution, context: &mut ProvisionContext) -> Result<(), StepError> {
        let output = run.record().outputs.get(self.0.name()).cloned();
        let cx = context.step_context(run, self.0.name()).await?;
        self.0.compensate(&cx, output).await
    }
}
