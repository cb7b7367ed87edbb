//! The host's migrations, by its own migrator, over a ledger that also tells of what happens outside a transaction.
use crate::cluster::pg::ddl;
use crate::error::StepError;
use crate::sqlstate;
use futures_core::future::BoxFuture;
use sqlx::PgConnection;
use sqlx::migrate::{AppliedMigration, Migrate, MigrateError, Migration, Migrator};
use std::time::{Duration, Instant};

/// Brings the database to the newest version, which it returns.
///
/// A migration outside a transaction that was begun and did not end well leaves what only a person can judge, so for a
/// tenant that exists it is [`StepError::park`]. A `new` database can be made anew.
pub(crate) async fn run_migrations(
    session: &mut PgConnection, migrator: &'static Migrator, new: bool,
) -> Result<Option<i64>, StepError> {
    let ran = migrator.run_direct(None, &mut Ledgered(session), false).await;
    ran.map_err(
        |error| if !new && is_unfinished(migrator, &error) { StepError::park(error) } else { step_error(error) },
    )?;
    Ok(head(migrator))
}

fn is_unfinished(migrator: &Migrator, error: &MigrateError) -> bool {
    match error {
        MigrateError::Dirty(_) => true,
        MigrateError::ExecuteMigration(_, version) => migrator.iter().any(|m| m.version == *version && m.no_tx),
        _ => false,
    }
}

/// The newest version that there is.
pub(crate) fn head(migrator: &Migrator) -> Option<i64> {
    migrator.iter().filter(|m| m.migration_type.is_up_migration()).map(|m| m.version).max()
}

fn step_error(error: MigrateError) -> StepError {
    let transient = match &error {
        // Of an earlier try: the database is made anew.
        MigrateError::Dirty(_) => true,
        MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => sqlstate::is_transient(e),
        _ => false,
    };
    if transient { StepError::retry(error) } else { StepError::fail(error) }
}

/// sqlx's own way, but for one thing: a migration outside a transaction and its row in the ledger are two commits. So
/// its row comes first, as `success = false`: sqlx's own word for "look at this before you go on".
struct Ledgered<'a>(&'a mut PgConnection);

impl Ledgered<'_> {
    async fn apply_outside(&mut self, table: &str, migration: &Migration) -> Result<Duration, MigrateError> {
        let begun = Instant::now();
        ddl::ledger_begins(table, migration.version, &migration.description, &migration.checksum)
            .execute(self.0)
            .await?;
        let ran = sqlx::Executor::execute(&mut *self.0, migration.sql.clone()).await;
        ran.map_err(|e| MigrateError::ExecuteMigration(e, migration.version))?;
        let elapsed = begun.elapsed();
        ddl::ledger_ends(table, migration.version, elapsed).execute(self.0).await?;
        Ok(elapsed)
    }
}

type Answer<'e, T> = BoxFuture<'e, Result<T, MigrateError>>;

impl Migrate for Ledgered<'_> {
    fn apply<'e>(&'e mut self, table: &'e str, migration: &'e Migration) -> Answer<'e, Duration> {
        if migration.no_tx { Box::pin(self.apply_outside(table, migration)) } else { self.0.apply(table, migration) }
    }
    fn create_schema_if_not_exists<'e>(&'e mut self, schema: &'e str) -> Answer<'e, ()> {
        self.0.create_schema_if_not_exists(schema)
    }
    fn ensure_migrations_table<'e>(&'e mut self, table: &'e str) -> Answer<'e, ()> {
        self.0.ensure_migrations_table(table)
    }
    fn dirty_version<'e>(&'e mut self, table: &'e str) -> Answer<'e, Option<i64>> {
        self.0.dirty_version(table)
    }
    fn list_applied_migrations<'e>(&'e mut self, table: &'e str) -> Answer<'e, Vec<AppliedMigration>> {
        self.0.list_applied_migrations(table)
    }
    fn lock(&mut self) -> Answer<'_, ()> {
        self.0.lock()
    }
    fn unlock(&mut self) -> Answer<'_, ()> {
        self.0.unlock()
    }
    fn revert<'e>(&'e mut self, table: &'e str, migration: &'e Migration) -> Answer<'e, Duration> {
        self.0.revert(table, migration)
    }
    fn skip<'e>(&'e mut self, table: &'e str, migration: &'e Migration) -> Answer<'e, ()> {
        self.0.skip(table, migration)
    }
}
