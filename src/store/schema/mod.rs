//! The landlord's schema `tenantry`: embedded, versioned migrations with a migrations table of their own.
//!
//! The application calls [`install`] at deployment or start, and [`check`] wherever it only wants to know the state.
//! The facade calls [`check`] when it is built. The schema's name is fixed, so one database holds one installation. The
//! application's own tables may be in the same database.
//!
//! Invariants: an installation is one transaction, so a node sees all of a version or none of it. A landlord of a newer
//! version, or one that lacks an object, is reported and never changed.
use crate::error::{SchemaError, StoreError};
use crate::sqlstate;
use inspect::SchemaState;
use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::{PgConnection, PgPool, PgTransaction};

mod deadline;
mod inspect;
mod objects;
mod pool;
pub(crate) use deadline::{DEADLINE, LandlordPool};
pub use pool::pool_options;

/// Creates the schema `tenantry`, or upgrades it to this version of the crate. Existing data stays as it is.
///
/// Everything runs in one transaction. Any number of nodes may call this at the same time: one of them migrates, and
/// the others wait for it, up to a minute. A landlord that is up to date is only read. The role needs CREATE on its
/// database, or on the schema `tenantry` if that exists already. Later versions must be installed by the role that
/// installed the first one, because it owns the tables.
///
/// # Errors
/// [`SchemaError::Newer`] if a newer version of the crate has migrated this landlord. [`SchemaError::Damaged`] if a
/// table, column, index or trigger was dropped after the installation. [`SchemaError::Rights`] names the privileges
/// that the role lacks. [`SchemaError::Landlord`] if the database did not answer; call this function again.
///
/// # Cancel safety
/// After the future is dropped, the transaction has either rolled back or committed completely.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let landlord = tenantry::sqlx::PgPool::connect("postgres://app@localhost/landlord").await?;
/// tenantry::schema::install(&landlord).await?;
/// tenantry::schema::check(&landlord).await?;
/// # Ok(()) }
/// ```
pub async fn install(landlord: &PgPool) -> Result<(), SchemaError> {
    let mut tx = begin(landlord, "BEGIN READ ONLY").await?;
    let state = SchemaState::read(&mut tx).await.map_err(to_schema_error)?;
    tx.rollback().await.map_err(to_schema_error)?;
    match state.check_against(&MIGRATIONS) {
        Err(SchemaError::Missing(_)) => {}
        outcome => return outcome,
    }
    // READ COMMITTED, whatever the default of the database is: under REPEATABLE READ, the reads after the lock would
    // not see the migrations that another node committed while this one waited.
    let mut tx = begin(landlord, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(INSTALL_LOCK)
        .execute(&mut *tx)
        .await
        .map_err(to_schema_error)?;
    let state = SchemaState::read(&mut tx).await.map_err(to_schema_error)?;
    match state.check_against(&MIGRATIONS) {
        Err(SchemaError::Missing(_)) => migrate(&mut tx, &state).await?,
        outcome => return outcome,
    }
    SchemaState::read(&mut tx).await.map_err(to_schema_error)?.check_against(&MIGRATIONS)?;
    tx.commit().await.map_err(to_schema_error)
}

/// Checks that the landlord has everything that this version of the crate needs: migrations, tables, columns, indexes,
/// triggers, and the privileges of this role on the tables. One error lists everything of its kind that is missing.
/// Reads only. Each of its statements has a deadline of 10 s, and so has the wait for a connection.
///
/// # Errors
/// As [`install`], and [`SchemaError::Missing`] if a migration has not been applied; [`install`] applies it. Dropping
/// the future has no effect.
pub async fn check(landlord: &PgPool) -> Result<(), SchemaError> {
    check_on(&LandlordPool::new(landlord.clone())).await
}

/// [`check`] with the deadline of this pool.
pub(crate) async fn check_on(landlord: &LandlordPool) -> Result<(), SchemaError> {
    let read = async |session: &mut PgConnection| {
        sqlx::raw_sql(SEARCH_PATH).execute(&mut *session).await?;
        Ok::<_, StoreError>(SchemaState::read(session).await?)
    };
    let state = landlord.transaction("BEGIN READ ONLY", read).await.map_err(SchemaError::Landlord)?;
    state.check_against(&MIGRATIONS)
}

/// Without this, a function or table of the application in an earlier schema of the search path could replace the one
/// that a catalog query or a migration means.
const SEARCH_PATH: &str = "SET LOCAL search_path = pg_catalog, pg_temp";

/// Begins a transaction of [`install`]. It has no deadline: another node that migrates may keep the tables locked for as
/// long as a minute, and a migration of a large landlord may take longer than that.
async fn begin(landlord: &PgPool, begin_statement: &'static str) -> Result<PgTransaction<'static>, SchemaError> {
    let mut tx = landlord.begin_with(begin_statement).await.map_err(to_schema_error)?;
    sqlx::raw_sql(SEARCH_PATH).execute(&mut *tx).await.map_err(to_schema_error)?;
    sqlx::raw_sql("SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = 0")
        .execute(&mut *tx)
        .await
        .map_err(to_schema_error)?;
    Ok(tx)
}

/// Applies the pending migrations with the parts of sqlx's migrator. `Migrator::run` itself is not used for two
/// reasons: its advisory lock belongs to the session, so a cancelled call would leave the pooled connection locked, and
/// its future is not `Send` over a transaction.
async fn migrate(tx: &mut PgTransaction<'static>, state: &SchemaState) -> Result<(), SchemaError> {
    let privilege = if state.exists { "CREATE on the schema tenantry" } else { "CREATE on its database" };
    let map_sqlx_error = |e: sqlx::Error| match sqlstate::is(&e, sqlstate::INSUFFICIENT_PRIVILEGE) {
        true => SchemaError::Rights(vec![privilege.into()]),
        false => to_schema_error(e),
    };
    if !state.exists {
        sqlx::raw_sql("CREATE SCHEMA tenantry").execute(&mut **tx).await.map_err(map_sqlx_error)?;
    }
    let map_migrate_error = |e: MigrateError| match e {
        MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => map_sqlx_error(e),
        other => SchemaError::Landlord(StoreError::refused(other)),
    };
    tx.ensure_migrations_table(MIGRATIONS_TABLE).await.map_err(map_migrate_error)?;
    for migration in MIGRATIONS.iter().filter(|m| state.is_pending(m)) {
        tx.apply(MIGRATIONS_TABLE, migration).await.map_err(map_migrate_error)?;
    }
    Ok(())
}

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/schema/migrations");
const MIGRATIONS_TABLE: &str = "tenantry.schema_migrations";

fn to_schema_error(error: sqlx::Error) -> SchemaError {
    SchemaError::Landlord(error.into())
}

/// Advisory lock key of [`install`]: "tenantry" in ASCII. It must be the same in every version of this crate, since
/// nodes of different versions may install at the same time.
const INSTALL_LOCK: i64 = i64::from_be_bytes(*b"tenantry");
