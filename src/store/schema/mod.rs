//! The landlord's schema `tenantry`: embedded, versioned migrations with a migrations table of their own.
//!
//! It lives beside the host's own tables. The schema's name is fixed, so one database holds one installation.
use crate::error::{SchemaError, StoreError};
use crate::sqlstate;
use seen::Seen;
use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::{PgPool, PgTransaction};

mod objects;
mod pool;
mod seen;
pub use pool::pool_options;

/// Brings the landlord up to this version of the crate; what is there already stays as it is.
///
/// One transaction, all or nothing; any number of nodes may call it at once, and then one does the work while the
/// others wait up to a minute for it. A landlord that is up to date is only read. The role needs CREATE on its database
/// (or on the schema `tenantry`, if somebody has made that); later versions need the role that installed the first.
///
/// # Errors
/// [`SchemaError::Newer`] if a newer version was here; [`SchemaError::Damaged`] if something was dropped since;
/// [`SchemaError::Rights`] names what the role lacks; [`SchemaError::Landlord`] if the database did not answer: call it
/// again.
///
/// # Cancel safety
/// Dropping the future rolls back, or leaves a complete schema.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let landlord = tenantry::sqlx::PgPool::connect("postgres://app@localhost/landlord").await?;
/// tenantry::schema::install(&landlord).await?;
/// tenantry::schema::check(&landlord).await?;
/// # Ok(()) }
/// ```
pub async fn install(landlord: &PgPool) -> Result<(), SchemaError> {
    match check(landlord).await {
        Err(SchemaError::Missing(_)) => {}
        done_or_hopeless => return done_or_hopeless,
    }
    // So that a statement after the lock sees what the node before has committed, whatever the host's default is.
    let mut tx = begin(landlord, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
    sqlx::raw_sql("SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = 0")
        .execute(&mut *tx)
        .await
        .map_err(lost)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await.map_err(lost)?;
    let seen = Seen::read(&mut tx).await.map_err(lost)?;
    match seen.verdict(&MIGRATIONS) {
        Err(SchemaError::Missing(_)) => migrate(&mut tx, &seen).await?,
        done_or_hopeless => return done_or_hopeless,
    }
    Seen::read(&mut tx).await.map_err(lost)?.verdict(&MIGRATIONS)?;
    tx.commit().await.map_err(lost)
}

/// Whether the landlord is what this version of the crate needs: migrations, tables, columns, indexes, and the rights
/// of this role on them. One error names all that is missing and what mends it. Reads only.
///
/// # Errors
/// As [`install`], and [`SchemaError::Missing`], which `install` mends. Dropping the future has no effect.
pub async fn check(landlord: &PgPool) -> Result<(), SchemaError> {
    let mut tx = begin(landlord, "BEGIN READ ONLY").await?;
    let seen = Seen::read(&mut tx).await.map_err(lost)?;
    tx.rollback().await.map_err(lost)?;
    seen.verdict(&MIGRATIONS)
}

async fn begin(landlord: &PgPool, how: &'static str) -> Result<PgTransaction<'static>, SchemaError> {
    let mut tx = landlord.begin_with(how).await.map_err(lost)?;
    // Neither the catalog reads nor the migrations may meet a function or a table of the host's.
    sqlx::raw_sql("SET LOCAL search_path = pg_catalog, pg_temp").execute(&mut *tx).await.map_err(lost)?;
    Ok(tx)
}

/// The parts of sqlx's migrator, without its lock (it is the session's: a cancelled call would leave it with the pool's
/// connection) and without its `run` (its future is not `Send` over a transaction).
async fn migrate(tx: &mut PgTransaction<'static>, seen: &Seen) -> Result<(), SchemaError> {
    let right = if seen.schema { "CREATE on the schema tenantry" } else { "CREATE on its database" };
    let denied = |e: sqlx::Error| match sqlstate::is(&e, sqlstate::INSUFFICIENT_PRIVILEGE) {
        true => SchemaError::Rights(vec![right.into()]),
        false => lost(e),
    };
    if !seen.schema {
        sqlx::raw_sql("CREATE SCHEMA tenantry").execute(&mut **tx).await.map_err(denied)?;
    }
    let failed = |e: MigrateError| match e {
        MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => denied(e),
        other => SchemaError::Landlord(StoreError::unavailable(other)),
    };
    tx.ensure_migrations_table(TABLE).await.map_err(failed)?;
    for migration in MIGRATIONS.iter().filter(|m| seen.lacks(m)) {
        tx.apply(TABLE, migration).await.map_err(failed)?;
    }
    Ok(())
}

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/schema/migrations");
const TABLE: &str = "tenantry.schema_migrations";

fn lost(error: sqlx::Error) -> SchemaError {
    SchemaError::Landlord(error.into())
}

/// "tenantry" in ASCII: the same for every version of this crate.
const LOCK: i64 = i64::from_be_bytes(*b"tenantry");
