//! The steps of a migration.
//!
//! The saga lists them in this order. A failed migration is undone only by dropping the migrator: applied versions
//! stay.
use super::Request;
use super::context::MigrateContext;
use super::schema_state;
use crate::cluster::{
    MigrationState, MigrationStatus, close_ledger, is_migration_lock_held, read_ledger, run_migrations,
};
use crate::error::{ChangeError, StepError};
use crate::operations::managed::require_managed;
use crate::saga::{Execution, SagaStep};
use crate::store::journal::LOGINS;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The stored names of the steps whose output holds a version.
pub(super) const CREATE: &str = "migrator.create";
pub(super) const RUN: &str = "migrations.run";

/// The stored output of [`MigrateStep::Create`].
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct LedgerBefore {
    /// Newest version in the ledger.
    pub(super) version: Option<i64>,
    /// Versions that are to be run, oldest first.
    pub(super) pending: Vec<i64>,
    /// [`LOGINS`]: the migrator.
    #[serde(flatten)]
    logins: Map<String, Value>,
}

/// A step of a migration.
#[derive(Clone, Copy)]
pub(super) enum MigrateStep {
    /// Creates the migrator login. The output is the [`LedgerBefore`].
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
                verify_landlord(run, context).await?;
                let session = context.sessions.migrator(run).await?;
                let MigrationStatus { applied: version, state, .. } =
                    MigrationStatus::compare(migrations, &read_ledger(migrations, session).await?);
                let pending = match state {
                    MigrationState::Behind { pending } => pending,
                    _ => vec![],
                };
                let migrator = &context.sessions.location().await?.names.migrator;
                let logins = Map::from_iter([(String::from(LOGINS), json!([migrator]))]);
                serde_json::to_value(LedgerBefore { version, pending, logins }).map_err(StepError::fail)
            }
            Self::RunMigrations => {
                let session = context.sessions.migrator(run).await?;
                let ran = run_migrations(session, migrations).await;
                schema_state::record(run, context, &ran).await?;
                let ran = name_lock_holder(run, context, ran).await;
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
    /// Drops the migrator. Applied migrations stay, so the nodes are notified of them.
    async fn undo(&self, run: &Execution, context: &mut MigrateContext) -> Result<(), StepError> {
        match self {
            Self::RunMigrations => schema_state::record_unknown(run, context).await,
            Self::Create => context.sessions.drop_migrator(run).await,
            _ => Ok(()),
        }
    }
}

/// Fails unless the tenant's status and its primary entry allow the migration. The call checked this before the
/// operation had its lane, but a preempting operation may have suspended or archived the tenant in between.
async fn verify_landlord(run: &Execution, context: &MigrateContext) -> Result<(), StepError> {
    let tenant = context.stores.registry.find(context.sessions.tenant().into()).await?;
    let tenant = tenant.ok_or_else(|| StepError::fail(ChangeError::Unknown))?;
    run.request::<Request>()?.check_status(&tenant).map_err(StepError::fail)?;
    match require_managed(&context.stores, tenant.id()).await {
        Err(ChangeError::Landlord(error)) => Err(error.into()),
        checked => checked.map_err(StepError::fail),
    }
}

/// If sqlx's lock of the migrations was not free in time, replaces the error by one that names the session that has it.
/// Only the provisioner can see since when that session has been connected and idle.
async fn name_lock_holder<T>(
    run: &Execution, context: &mut MigrateContext, ran: Result<T, StepError>,
) -> Result<T, StepError> {
    if ran.as_ref().is_err_and(is_migration_lock_held) {
        let database = context.sessions.location().await?.names.database.clone();
        let locked = context.sessions.locked_session(run).await?;
        return Err(StepError::fail(locked.describe_migration_lock(&database).await?));
    }
    ran
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
