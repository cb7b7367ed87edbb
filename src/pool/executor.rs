//! What sqlx asks of whatever runs queries: each call takes a connection for its own time.
use super::{Checked, TenantPool};
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
            let whole = query.is_whole();
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
            done(connection, whole, end)?;
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
            let whole = query.is_whole();
            let mut connection = pool.checkout().await?;
            let row = connection.session()?.fetch_optional(query).await;
            done(connection, whole, row)
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
            done(connection, true, prepared)
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
            done(connection, true, described)
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
    /// What a call does before and after its statement, and no statement: for benchmarks.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub async fn out_and_in(&self) -> Result<(), sqlx::Error> {
        let pool = self.clone();
        let connection = pool.checkout().await?;
        done(connection, true, Ok(()))
    }
}

/// The connection goes back as it is if nothing of this call is left in it.
fn done<T>(connection: Checked<'_>, whole: bool, outcome: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
    match &outcome {
        Ok(_) if whole => connection.clean(),
        Err(error) if whole || sqlstate::is_connection_lost(error) => connection.failed(error),
        _ => {}
    }
    outcome
}

/// A query whose text was looked at.
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

    /// Whether no transaction of its own can outlast it. sqlx does not tell how the session stands; but only a statement
    /// whose text says BEGIN or START can begin one. Who says it for another reason goes the long way, which is a ping.
    fn is_whole(&self) -> bool {
        let text = self.sql.as_str().as_bytes();
        let says = |word: &[u8]| text.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word));
        !says(b"begin") && !says(b"start")
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
    fn what_may_leave_a_transaction_open_is_seen() {
        let whole = |sql: &'static str| Query::from(sqlx::raw_sql(sql)).unwrap().is_whole();
        assert!(whole("SELECT 1") && whole("INSERT INTO notes VALUES ($1)"));
        for open in ["BEGIN", "select 1; begin", "START TRANSACTION", "/* x */ Start transaction read only"] {
            assert!(!whole(open), "{open}");
        }
    }
}
