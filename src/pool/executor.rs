//! sqlx's `Executor` and `Acquire` for `&TenantPool`: each call takes a connection and returns it at its end.
//!
//! A connection is returned at once only if its statement was read to the end and cannot have left a transaction open.
//! In every other case, and when the caller drops the future or the stream, the connection is rolled back and pinged
//! first.
use super::TenantPool;
use super::acquire::BorrowedConnection;
use crate::sqlstate;
use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::TryStreamExt;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Acquire, Either, Execute, Executor, Postgres, SqlStr, Transaction};

impl<'p> Executor<'p> for &'_ TenantPool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        Box::pin(async_stream::try_stream! {
            let query = Query::from(query)?;
            let is_self_contained = query.is_self_contained();
            let mut connection = pool.checkout().await?;
            let end = {
                let mut rows = connection.session()?.fetch_many(query);
                loop {
                    match rows.try_next().await {
                        Ok(Some(row)) => yield row,
                        Ok(None) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                }
            };
            finish_call(connection, is_self_contained, end)?;
        })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        Box::pin(async move {
            let query = Query::from(query)?;
            let is_self_contained = query.is_self_contained();
            let mut connection = pool.checkout().await?;
            let row = connection.session()?.fetch_optional(query).await;
            finish_call(connection, is_self_contained, row)
        })
    }

    fn prepare_with<'e>(
        self, sql: SqlStr, parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut connection = pool.checkout().await?;
            let prepared = connection.session()?.prepare_with(sql, parameters).await;
            finish_call(connection, true, prepared)
        })
    }

    #[doc(hidden)]
    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>, sqlx::Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut connection = pool.checkout().await?;
            let described = connection.session()?.describe(sql).await;
            finish_call(connection, true, described)
        })
    }
}

impl<'a> Acquire<'a> for &'_ TenantPool {
    type Database = Postgres;
    type Connection = PoolConnection<Postgres>;

    fn acquire(self) -> BoxFuture<'a, Result<PoolConnection<Postgres>, sqlx::Error>> {
        let pool = self.clone();
        Box::pin(async move { TenantPool::acquire(&pool).await })
    }
    fn begin(self) -> BoxFuture<'a, Result<Transaction<'a, Postgres>, sqlx::Error>> {
        let pool = self.clone();
        Box::pin(async move { TenantPool::begin(&pool).await })
    }
}

impl TenantPool {
    /// Takes a connection and returns it, as for a statement, but runs none. For benchmarks.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub async fn acquire_and_release(&self) -> Result<(), sqlx::Error> {
        let pool = self.clone();
        let connection = pool.checkout().await?;
        finish_call(connection, true, Ok(()))
    }
}

/// Returns the connection: at once if the statement can have left nothing in it, else by the drop, which rolls back and
/// pings.
#[inline]
fn finish_call<T>(
    connection: BorrowedConnection<'_>, is_self_contained: bool, outcome: Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    if let BorrowedConnection::Budget(checked_out) = connection {
        match &outcome {
            Ok(_) if is_self_contained => checked_out.release_clean(),
            Err(error) if is_self_contained || sqlstate::is_connection_lost(error) => checked_out.release_failed(error),
            _ => {}
        }
    }
    outcome
}

/// A query that was taken apart, so that its text can be read before it runs.
struct Query {
    sql: SqlStr,
    statement: Option<PgStatement>,
    arguments: Option<PgArguments>,
    persistent: bool,
}

impl Query {
    fn from<'q>(mut query: impl Execute<'q, Postgres>) -> Result<Self, sqlx::Error> {
        let arguments = query.take_arguments().map_err(sqlx::Error::Encode)?;
        let (statement, persistent) = (query.statement().cloned(), query.persistent());
        Ok(Self { sql: query.sql(), statement, arguments, persistent })
    }

    /// Whether the query cannot leave a transaction open. sqlx does not expose the session's transaction status, but
    /// only a text that contains BEGIN or START can begin a transaction. A text that contains one of them for another
    /// reason only costs extra round trips: the check for a transaction and a ping.
    fn is_self_contained(&self) -> bool {
        let text = self.sql.as_str().as_bytes();
        let has_word = |word: &[u8]| text.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word));
        !has_word(b"begin") && !has_word(b"start")
    }
}

impl<'q> Execute<'q, Postgres> for Query {
    fn sql(self) -> SqlStr {
        self.sql
    }
    fn statement(&self) -> Option<&PgStatement> {
        self.statement.as_ref()
    }
    fn take_arguments(&mut self) -> Result<Option<PgArguments>, sqlx::error::BoxDynError> {
        Ok(self.arguments.take())
    }
    fn persistent(&self) -> bool {
        self.persistent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_that_may_begin_a_transaction_is_not_self_contained() {
        let is_self_contained = |sql: &'static str| Query::from(sqlx::raw_sql(sql)).unwrap().is_self_contained();
        assert!(is_self_contained("SELECT 1") && is_self_contained("INSERT INTO notes VALUES ($1)"));
        for open in ["BEGIN", "select 1; begin", "START TRANSACTION", "/* x */ Start transaction read only"] {
            assert!(!is_self_contained(open), "this query may leave a transaction open: {open}");
        }
    }
}
