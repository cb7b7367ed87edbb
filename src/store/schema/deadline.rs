//! The application's pool to the landlord, with a deadline for each statement of the stores.
//!
//! [`LandlordPool`] is a sqlx `Executor`, so the stores use it like the pool itself. Several statements that belong
//! together run in [`LandlordPool::transaction`].
//!
//! Invariants:
//! - Waiting for a connection, which includes opening one, has the deadline too. So a call returns at the latest after
//!   two deadlines and the time limit of the clean-up.
//! - A statement that is too late is cancelled on the server before the call returns. Otherwise it would keep waiting
//!   for a lock, with its session, and could take effect after the caller has repeated it.
//! - A connection whose statement was too late is closed, so no later statement can read its answer.
use crate::query::Query;
use call::Call;
use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::TryStreamExt;
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Either, Execute, Executor, PgPool, Postgres, SqlStr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

mod call;
mod transaction;

/// Default deadline of a statement. The statements of the stores take milliseconds; a landlord under load or in a
/// checkpoint may need seconds. A web request that waits longer than this is of no use to its client.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// Maximum sessions that cancel statements at once. When many statements are too late, one session cancels those with
/// the same text together.
const CANCELLERS: usize = 2;

/// A pool to the landlord, with a deadline. A clone shares the pool.
#[derive(Clone, Debug)]
pub(crate) struct LandlordPool {
    pool: PgPool,
    deadline: Duration,
    cancellers: Arc<Semaphore>,
}

impl LandlordPool {
    /// Uses this pool with the default deadline.
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool, deadline: DEADLINE, cancellers: Arc::new(Semaphore::new(CANCELLERS)) }
    }
    /// Sets the deadline of each statement, and of each wait for a connection.
    pub(crate) fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }
}

/// Waits for a connection, runs `$run` on it as `$session`, and cleans up if the deadline passes or the future is
/// dropped. A macro, because a closure cannot name the lifetime of sqlx's futures.
macro_rules! call {
    ($landlord:expr, $sql:expr, |$session:ident| $run:expr) => {{
        let mut call = Call::start(&$landlord, Some($sql)).await?;
        let (until, $session) = (call.until(), call.session()?);
        let outcome = timeout_at(until, $run).await;
        call.finish(outcome).await?
    }};
}

impl<'p> Executor<'p> for &'_ LandlordPool {
    type Database = Postgres;

    /// Reads all rows before it yields the first one, so that the deadline does not depend on the caller.
    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let landlord = self.clone();
        Box::pin(async_stream::try_stream! {
            let query = Query::from(query)?;
            let sql = query.sql.clone();
            let rows: Result<Vec<_>, sqlx::Error> =
                async { call!(landlord, sql, |session| session.fetch_many(query).try_collect::<Vec<_>>()) }.await;
            for row in rows? {
                yield row;
            }
        })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let landlord = self.clone();
        Box::pin(async move {
            let query = Query::from(query)?;
            let sql = query.sql.clone();
            call!(landlord, sql, |session| session.fetch_optional(query))
        })
    }

    fn prepare_with<'e>(
        self, sql: SqlStr, parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'p: 'e,
    {
        let landlord = self.clone();
        Box::pin(async move { call!(landlord, sql.clone(), |session| session.prepare_with(sql, parameters)) })
    }

    #[doc(hidden)]
    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>, sqlx::Error>>
    where
        'p: 'e,
    {
        let landlord = self.clone();
        Box::pin(async move { call!(landlord, sql.clone(), |session| session.describe(sql)) })
    }
}
