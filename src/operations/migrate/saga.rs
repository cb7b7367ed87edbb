//! The saga of a migration: its ordered steps and its pivot step.
//!
//! [`Migration`](super::Migration) begins it, and recovery continues it. Applied migrations are not reverted, so from
//! closing the ledger on failures no longer undo.
use super::context::MigrateContext;
use super::steps::MigrateStep;
use crate::cluster::OperationContext;
use crate::operation::Lane;
use crate::saga::Saga;
use sqlx::migrate::Migrator;

/// The saga of a migration.
pub(super) fn define(stores: OperationContext, migrations: Option<&'static Migrator>) -> Saga<MigrateContext> {
    Saga::new(super::KIND, Lane::Change, move |run| MigrateContext::new(stores.clone(), migrations, run))
        .step(MigrateStep::Create)
        .step(MigrateStep::RunMigrations)
        .pivot(MigrateStep::CloseLedger)
        .step(MigrateStep::Drop)
}
