//! The steps of a migration.
//!
//! The saga lists them in this order. A failed migration is undone only by dropping the migrator: applied versions
//! stay.
use super::context::MigrateContext;
use super::status::read_ledger;
use crate::cluster::{close_ledger, run_migrations};
use crate::error::{ChangeError, StepError};
use crate::saga::{Execution, SagaStep};
use crate::store::journal::LOGINS;
use crate::tenant::TenantStatus;
use async_trait::async_trait;
use serde_json::{Value, json};

/// The stored names of the steps whose output holds a version.
pub(super) const CREATE: &str = "migrator.create";
pub(super) const RUN: &str = "migrations.run";

/// A step of a migration.
#[derive(Clone, Copy)]
pub(super) enum MigrateStep {
    /// Creates the migrator login. The output holds the newest version in the ledger.
    Create,
    /// Runs the application's migrations. Repeating it is safe: a migration in a transaction has either run or not, and
    /// for one outside a transaction the ledger shows whether it was begun.
    RunMigrations,
    /// Lets the application read the ledger but not write it.
    CloseLedger,
    /// Drops the migrator login.
    Drop,
}

#[async_trait]
impl SagaStep<MigrateContext> for MigrateStep {
    fn name(&self) -> &'static str {
        match self {
            Self::Create => CREATE,
            Self::RunMigrations => RUN,
            Self::CloseLedger => "ledger.close",
            Self::Drop => "migrator.drop",
        }
    }
    fn shares_intent_with_previous(&self) -> bool {
        !matches!(self, Self::CloseLedger)
    }
    async fn run(&self, run: &Execution, context: &mut MigrateContext) -> Result<Value, StepError> {
        let migrations = context.migrations;
        match self {
            Self::Create => {
                require_active(context).await?;
                let session = context.sessions.migrator(run).await?;
                let newest = read_ledger(migrations, session).await?.last().map(|row| row.0);
                Ok(json!({ "version": newest, LOGINS: [&context.sessions.location().await?.names.migrator] }))
            }
            Self::RunMigrations => {
                let session = context.sessions.migrator(run).await?;
                let ran = run_migrations(session, migrations).await;
                Ok(json!({ "version": refuse_migrator_if_parked(run, context, ran).await? }))
            }
            Self::CloseLedger => {
                let app = context.sessions.location().await?.names.roles.app.clone();
                let session = context.sessions.migrator(run).await?;
                close_ledger(session, &migrations.table_name, &app).await?;
                Ok(Value::Null)
            }
            Self::Drop => context.sessions.drop_migrator(run).await.map(|()| Value::Null),
        }
    }
    /// Drops the migrator. Applied migrations stay.
    async fn undo(&self, run: &Execution, context: &mut MigrateContext) -> Result<(), StepError> {
        match self {
            Self::Create => context.sessions.drop_migrator(run).await,
            _ => Ok(()),
        }
    }
}

/// Fails unless the tenant is active. The call checked this before the operation had its lane, but a preempting
/// operation may have suspended or archived the tenant in between.
async fn require_active(context: &MigrateContext) -> Result<(), StepError> {
    match context.stores.registry.find(context.sessions.tenant().into()).await? {
        Some(tenant) if tenant.status() == TenantStatus::Active => Ok(()),
        Some(tenant) => Err(StepError::fail(ChangeError::Status { found: tenant.status() })),
        None => Err(StepError::fail(ChangeError::Unknown)),
    }
}

/// A parked operation may wait for days. Refuse the migrator login meanwhile, because it has the rights of the
/// database's owner.
async fn refuse_migrator_if_parked<T>(
    run: &Execution, context: &mut MigrateContext, ran: Result<T, StepError>,
) -> Result<T, StepError> {
    if ran.as_ref().is_err_and(StepError::is_park) {
        let names = context.sessions.location().await?.names.clone();
        context.sessions.locked_session(run).await?.refuse(&names, &[]).await?;
    }
    ran
}
