//! Running the application's migrations with sqlx's own `Migrator`, on the session of the tenant's migrator role.
//!
//! The provision and migrate sagas call [`run_migrations`]. The one difference to sqlx: for a migration outside a
//! transaction the row in `_sqlx_migrations` is written *before* its SQL runs, so a crash in between leaves a row with
//! `success = false` and not a database with unrecorded changes.
use crate::cluster::pg::ddl;
use crate::error::{ChangeError, StepError};
use crate::sqlstate;
use futures_core::future::BoxFuture;
use sqlx::PgConnection;
use sqlx::migrate::{AppliedMigration, Migrate, MigrateError, Migration, Migrator};
use std::time::{Duration, Instant};

/// Applies all pending migrations to the database of an existing tenant and returns the newest version.
///
/// # Errors
/// [`StepError::park`] when a migration outside a transaction started and did not succeed: what it left needs a
/// person's decision. [`ChangeError::Ahead`] when the database has a version that this program does not have; nothing
/// was changed then. An error for which [`is_migration_lock_held`] is true when sqlx's lock was not free within the
/// session's `lock_timeout` of ten seconds.
pub(crate) async fn run_migrations(
    session: &mut PgConnection, migrator: &'static Migrator,
) -> Result<Option<i64>, StepError> {
    let ran = migrator.run_direct(None, &mut Ledgered(session), false).await;
    ran.map_err(|error| if is_unfinished(migrator, &error) { StepError::park(error) } else { step_error(error) })?;
    Ok(head(migrator))
}

/// As [`run_migrations`], for a new database. A migration that did not succeed is an ordinary error, since the database
/// can be created again.
pub(crate) async fn run_migrations_in_new_database(
    session: &mut PgConnection, migrator: &'static Migrator,
) -> Result<Option<i64>, StepError> {
    migrator.run_direct(None, &mut Ledgered(session), false).await.map_err(step_error)?;
    Ok(head(migrator))
}

fn is_unfinished(migrator: &Migrator, error: &MigrateError) -> bool {
    match error {
        MigrateError::Dirty(_) => true,
        MigrateError::ExecuteMigration(_, version) => migrator.iter().any(|m| m.version == *version && m.no_tx),
        _ => false,
    }
}

/// The newest version among the migrations that are not reversions; `None` without migrations.
pub(crate) fn head(migrator: &Migrator) -> Option<i64> {
    migrator.iter().filter(|m| m.migration_type.is_up_migration()).map(|m| m.version).max()
}

fn step_error(error: MigrateError) -> StepError {
    let transient = match &error {
        // An earlier attempt left it in a new database. The saga undoes that database and creates another one.
        MigrateError::Dirty(_) => true,
        MigrateError::VersionMissing(version) => return StepError::fail(ChangeError::Ahead { version: *version }),
        MigrateError::Source(e) if e.is::<MigrationLockHeld>() => true,
        MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => sqlstate::is_transient(e),
        _ => false,
    };
    if transient { StepError::retry(error) } else { StepError::fail(error) }
}

/// Another session has the advisory lock that sqlx's `Migrator` takes while it migrates a database.
#[derive(Debug, thiserror::Error)]
#[error("another session has sqlx's lock of the migrations")]
struct MigrationLockHeld;

/// Whether migrations did not run because another session has sqlx's lock.
pub(crate) fn is_migration_lock_held(error: &StepError) -> bool {
    let migrate = std::error::Error::source(error).and_then(|e| e.downcast_ref::<MigrateError>());
    matches!(migrate, Some(MigrateError::Source(e)) if e.is::<MigrationLockHeld>())
}

/// Key of the advisory lock that sqlx's `Migrator` takes in a database of this name, as sqlx 0.9 computes it. Only for
/// finding the holder: sqlx itself takes the lock.
pub(crate) fn migration_lock_key(database: &str) -> i64 {
    0x3d32_ad9e * i64::from(crc32fast::hash(database.as_bytes()))
}

/// Delegates to sqlx's `Migrate`, except for migrations outside a transaction. Such a migration and its row in the
/// ledger are two commits, so the row is written first, with `success = false`. sqlx reports such a row as `Dirty` and
/// refuses to continue. A lock that is not free in time gets an error of its own.
struct Ledgered<'a>(&'a mut PgConnection);

impl Ledgered<'_> {
    async fn apply_outside(&mut self, table: &str, migration: &Migration) -> Result<Duration, MigrateError> {
        let started = Instant::now();
        ddl::insert_ledger_row(table, migration.version, &migration.description, &migration.checksum)
            .execute(self.0)
            .await?;
        let ran = sqlx::Executor::execute(&mut *self.0, migration.sql.clone()).await;
        ran.map_err(|e| MigrateError::ExecuteMigration(e, migration.version))?;
        let elapsed = started.elapsed();
        ddl::complete_ledger_row(table, migration.version, elapsed).execute(self.0).await?;
        Ok(elapsed)
    }
}

type MigrateFuture<'e, T> = BoxFuture<'e, Result<T, MigrateError>>;

impl Migrate for Ledgered<'_> {
    fn apply<'e>(&'e mut self, table: &'e str, migration: &'e Migration) -> MigrateFuture<'e, Duration> {
        if migration.no_tx { Box::pin(self.apply_outside(table, migration)) } else { self.0.apply(table, migration) }
    }
    fn create_schema_if_not_exists<'e>(&'e mut self, schema: &'e str) -> MigrateFuture<'e, ()> {
        self.0.create_schema_if_not_exists(schema)
    }
    fn ensure_migrations_table<'e>(&'e mut self, table: &'e str) -> MigrateFuture<'e, ()> {
        self.0.ensure_migrations_table(table)
    }
    fn dirty_version<'e>(&'e mut self, table: &'e str) -> MigrateFuture<'e, Option<i64>> {
        self.0.dirty_version(table)
    }
    fn list_applied_migrations<'e>(&'e mut self, table: &'e str) -> MigrateFuture<'e, Vec<AppliedMigration>> {
        self.0.list_applied_migrations(table)
    }
    fn lock(&mut self) -> MigrateFuture<'_, ()> {
        Box::pin(async {
            match self.0.lock().await {
                Err(MigrateError::Execute(e)) if sqlstate::is(&e, sqlstate::LOCK_NOT_AVAILABLE) => {
                    Err(MigrateError::Source(MigrationLockHeld.into()))
                }
                locked => locked,
            }
        })
    }
    fn unlock(&mut self) -> MigrateFuture<'_, ()> {
        self.0.unlock()
    }
    fn revert<'e>(&'e mut self, table: &'e str, migration: &'e Migration) -> MigrateFuture<'e, Duration> {
        self.0.revert(table, migration)
    }
    fn skip<'e>(&'e mut self, table: &'e str, migration: &'e Migration) -> MigrateFuture<'e, ()> {
        self.0.skip(table, migration)
    }
}
