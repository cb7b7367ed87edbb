//! State of one worker of a migration.
use crate::cluster::{OperationContext, TenantSessions};
use crate::error::StepError;
use crate::saga::Execution;
use sqlx::migrate::Migrator;

/// Stores and sessions of one worker of a migration, and the migrations of this program.
pub(super) struct MigrateContext {
    pub(super) stores: OperationContext,
    pub(super) sessions: TenantSessions,
    pub(super) migrations: &'static Migrator,
}

impl MigrateContext {
    /// Parks the operation if this program has no migrations.
    pub(super) fn new(
        stores: OperationContext, migrations: Option<&'static Migrator>, run: &Execution,
    ) -> Result<Self, StepError> {
        let none = || StepError::park("this program has no tenant migrations; resume from one that has them");
        let sessions = TenantSessions::new(stores.clone(), run)?;
        Ok(Self { stores, sessions, migrations: migrations.ok_or_else(none)? })
    }
}
