use super::KIND;
use super::status::ledger;
use crate::cluster::{OperationContext, TenantSessions, close_ledger, run_migrations};
use crate::error::{ChangeError, StepError};
use crate::saga::{Execution, Saga, SagaStep};
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
    stores: OperationContext,
    migrations: Option<&'static Migrator>,
    steps: Vec<Box<dyn SagaStep<MigrateContext>>>,
}

pub(crate) struct MigrateContext {
    stores: OperationContext,
    sessions: TenantSessions,
    migrations: &'static Migrator,
}

impl MigrateSaga {
    pub(super) fn new(stores: OperationContext, migrations: Option<&'static Migrator>) -> Self {
        let steps = [Migrate::Create, Migrate::Execution, Migrate::CloseLedger, Migrate::Drop];
        Self { stores, migrations, steps: steps.map(|s| Box::new(s) as Box<dyn SagaStep<MigrateContext>>).into() }
    }
    pub(super) fn len(&self) -> u32 {
        self.steps.len() as u32
    }
}

impl Saga for MigrateSaga {
    type Context = MigrateContext;
    fn kind(&self) -> &'static str {
        KIND
    }
    fn steps(&self) -> &[Box<dyn SagaStep<MigrateContext>>] {
        &self.steps
    }
    /// What has migrated is not taken back: from the ledger on it only goes forward.
    fn pivot_index(&self) -> usize {
        2
    }
    fn context(&self, run: &Execution) -> Result<MigrateContext, StepError> {
        let none = || StepError::park("this program has no tenant migrations; a newer one goes on with it");
        Ok(MigrateContext {
            stores: self.stores.clone(),
            sessions: TenantSessions::new(self.stores.clone(), run)?,
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
    Execution,
    /// The application may read the ledger and not write it.
    CloseLedger,
    /// The migrator lives for one operation.
    Drop,
}

#[async_trait]
impl SagaStep<MigrateContext> for Migrate {
    fn name(&self) -> &'static str {
        match self {
            Self::Create => CREATE,
            Self::Execution => RUN,
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
                only_active(context).await?;
                let session = context.sessions.migrator(run).await?;
                let newest = ledger(migrations, session).await?.last().map(|row| row.0);
                Ok(json!({ "version": newest, LOGINS: [&context.sessions.location().await?.names.migrator] }))
            }
            Self::Execution => {
                let session = context.sessions.migrator(run).await?;
                let ran = run_migrations(session, migrations, false).await;
                Ok(json!({ "version": shut_if_parked(run, context, ran).await? }))
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
    /// What has been applied stays, in transactions of its own; the migrator goes.
    async fn undo(&self, run: &Execution, context: &mut MigrateContext) -> Result<(), StepError> {
        match self {
            Self::Create => context.sessions.drop_migrator(run).await,
            _ => Ok(()),
        }
    }
}

/// It was active before the lane was taken, and a fence may have ended in between.
async fn only_active(context: &MigrateContext) -> Result<(), StepError> {
    match context.stores.registry.find(context.sessions.tenant().into()).await? {
        Some(tenant) if tenant.status() == TenantStatus::Active => Ok(()),
        Some(tenant) => Err(StepError::fail(ChangeError::Status { found: tenant.status() })),
        None => Err(StepError::fail(ChangeError::Unknown)),
    }
}

/// A parked operation may wait for days: nobody comes in by its migrator meanwhile.
async fn shut_if_parked<T>(
    run: &Execution, context: &mut MigrateContext, ran: Result<T, StepError>,
) -> Result<T, StepError> {
    if ran.as_ref().is_err_and(StepError::is_park) {
        let names = context.sessions.location().await?.names.clone();
        context.sessions.locked_session(run).await?.refuse(&names, &[]).await?;
    }
    ran
}
