//! The frame of every write: the fence before it, its outcome after it.
use crate::error::StoreError;
use crate::operation::{FencingToken, OperationId};
use crate::sqlstate;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgPool, Postgres, Row};

/// A write is a list of CTEs that start from `fence` and end with `done`, which has a row if the write took place.
///
/// $1 and $2 are the writer, or NULL for a change by hand. `lock` makes a takeover wait for this statement, and this
/// statement for a takeover: after that wait the epoch's condition is looked at anew. A plain EXISTS would let a stale
/// write that waits for something else land after the takeover.
///
/// A write of an operation whose journal is in this very database is not waited for on the disk. Commits get lost from
/// the end alone, so a crash of the landlord that takes it takes the record of its step too: the step runs again, from an
/// intent that was waited for, or that is gone with it. A worker that outlives that crash is told so by its next record,
/// which knows the server's incarnation. The operation's end is waited for again, unless it may repeat. A step whose effect
/// elsewhere must find this write has an intent of its own between the two.
macro_rules! fenced {
    ($($part:expr),+ $(,)?) => {
        concat!(
            "WITH lock AS (SELECT CASE WHEN EXISTS (SELECT FROM tenantry.operations WHERE id = $1) ",
            "THEN set_config('synchronous_commit', 'off', true) ELSE '' END AS commit ",
            "FROM tenantry.epochs WHERE operation = $1 AND epoch = $2 FOR SHARE), ",
            "fence AS (SELECT 1 FROM lock WHERE commit IS NOT NULL UNION ALL SELECT 1 WHERE $1::uuid IS NULL), ",
            $($part),+,
            " SELECT EXISTS (SELECT FROM fence) AS held, EXISTS (SELECT FROM done) AS done"
        )
    };
}
pub(super) use fenced;

/// What is kept of a login `u` whose status changes: by which operation, and from what.
macro_rules! changed {
    () => {
        "u.metadata || jsonb_build_object('by', $1::uuid, 'before', u.status)"
    };
}
pub(super) use changed;

pub(super) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// A statement made by `fenced!`, with its writer bound; the caller's own parameters begin at $3.
pub(super) fn statement<'q>(sql: &'static str, writer: Option<FencingToken>) -> Statement<'q> {
    sqlx::query(sql).bind(writer.map(|w| w.operation.as_uuid())).bind(writer.map(|w| w.epoch))
}

/// Whether it took place. `false`: it changed nothing, because of what stands there; a read will say what that is.
pub(super) async fn run(landlord: &PgPool, statement: Statement<'_>) -> Result<bool, StoreError> {
    match statement.fetch_one(landlord).await {
        Ok(row) if !row.try_get::<bool, _>("held")? => Err(StoreError::Fenced),
        Ok(row) => Ok(row.try_get("done")?),
        Err(error) if sqlstate::is_other_rows(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The write was refused for a reason that was gone when it was looked for.
pub(super) fn gone() -> StoreError {
    StoreError::unavailable("what stood in the way has changed at this moment")
}

const FENCE: &str = "INSERT INTO tenantry.epochs AS e (operation, epoch) VALUES ($1, $2)
    ON CONFLICT (operation) DO UPDATE SET epoch = EXCLUDED.epoch WHERE e.epoch <= EXCLUDED.epoch
    RETURNING epoch";

pub(super) async fn fence(landlord: &PgPool, operation: OperationId, epoch: i64) -> Result<(), StoreError> {
    let raised = sqlx::query(FENCE).bind(operation.as_uuid()).bind(epoch).fetch_optional(landlord).await?;
    raised.map(drop).ok_or(StoreError::Fenced)
}
