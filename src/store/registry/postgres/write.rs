//! The common parts of every write: the check of the writer's epoch, and the interpretation of the result.
//!
//! The other modules build a statement with [`fenced_write!`], bind it with [`statement`], and execute it with [`run`].
use crate::error::StoreError;
use crate::operation::{FencingToken, OperationId};
use crate::sqlstate;
use crate::store::schema::LandlordPool;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{Postgres, Row};

/// Builds a write from CTEs that start from `fence` and end with `done`. `done` has a row if the write took place.
///
/// $1 and $2 are the writer's operation and epoch, or NULL for a change outside any operation. The CTE `lock` takes FOR
/// SHARE on the epoch's row. So a takeover waits for this statement, and this statement waits for a takeover and then
/// checks the new epoch. With a plain EXISTS, a stale write that waits for another lock could land after the takeover.
///
/// If the operation's journal is in this database too, the write commits asynchronously, for these reasons. A crash of
/// the landlord loses only the latest commits. If it loses this write, it also loses the later record that the step is
/// complete. Then the step runs again, from an intent that was committed synchronously or was lost as well. A worker
/// that survives the crash finds out at its next record, which compares the server's incarnation. The operation's final
/// record is synchronous again, unless it may be repeated. If a step has an effect elsewhere that depends on this
/// write, the saga writes another intent between the two.
macro_rules! fenced_write {
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
pub(super) use fenced_write;

/// New `metadata` of a login `u` whose status changes: the operation that changes it, and the old status.
macro_rules! status_change {
    () => {
        "u.metadata || jsonb_build_object('by', $1::uuid, 'before', u.status)"
    };
}
pub(super) use status_change;

pub(super) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// Creates the query of a statement that [`fenced_write!`] built, and binds the writer. The caller's parameters begin
/// at $3.
pub(super) fn statement<'q>(sql: &'static str, writer: Option<FencingToken>) -> Statement<'q> {
    sqlx::query(sql).bind(writer.map(|w| w.operation.as_uuid())).bind(writer.map(|w| w.epoch))
}

/// Executes the statement and returns whether the write took place. `false` means that it changed nothing because of
/// the stored state; the caller then reads that state to find the reason. `Fenced` if the writer's epoch is not the
/// stored one.
pub(super) async fn run(landlord: &LandlordPool, statement: Statement<'_>) -> Result<bool, StoreError> {
    match statement.fetch_one(landlord).await {
        Ok(row) if !row.try_get::<bool, _>("held")? => Err(StoreError::Fenced),
        Ok(row) => Ok(row.try_get("done")?),
        Err(error) if sqlstate::is_conflicting_row(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The error for a write that was refused although the following read found no reason: another call has changed the
/// state in between. The caller should repeat the write.
pub(super) fn concurrent_change() -> StoreError {
    StoreError::contended("the stored state changed during the write")
}

/// Returns no row if the stored epoch is higher. The update waits for running writes, which hold FOR SHARE on the row.
const FENCE: &str = "INSERT INTO tenantry.epochs AS e (operation, epoch) VALUES ($1, $2)
    ON CONFLICT (operation) DO UPDATE SET epoch = EXCLUDED.epoch WHERE e.epoch <= EXCLUDED.epoch
    RETURNING epoch";

/// Stores the epoch of a new worker. See [`RegistryWriter::fence`](super::RegistryWriter::fence).
pub(super) async fn fence(landlord: &LandlordPool, operation: OperationId, epoch: i64) -> Result<(), StoreError> {
    let raised = sqlx::query(FENCE).bind(operation.as_uuid()).bind(epoch).fetch_optional(landlord).await?;
    raised.map(drop).ok_or(StoreError::Fenced)
}
