//! sqlx's `Executor` and `Acquire` for `&TenantPool`: each call takes a connection and returns it at its end.
//!
//! A connection is returned at once only if its statement was read to the end and cannot have left a transaction open.
//! In every other case, and when the caller drops the future or the stream, the connection is rolled back and pinged
//! first. A statement whose session is older than the tenant's schema is repeated once; see `retry`.
use super::TenantPool;
use super::acquire::BorrowedConnection;
use super::query::Query;
use crate::sqlstate;
use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::TryStreamExt;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
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
            let mut query = Query::from(query)?;
            let is_self_contained = query.is_self_contained();
            let mut connection = pool.checkout().await?;
            let mut again = connection.copy_for_retry(&query);
            loop {
                let end = {
                    let mut rows = connection.session()?.fetch_many(query);
                    loop {
                        match rows.try_next().await {
                            Ok(Some(row)) => {
                                // Nothing is repeated once the caller has seen a row or a count.
                                again = None;
                                yield row;
                            }
                            Ok(None) => break Ok(()),
                            Err(error) => break Err(error),
                        }
                    }
                };
                let copy = match &end {
                    Err(error) if connection.is_stale_after(error) => again.take(),
                    _ => None,
                };
                let Some(copy) = copy else {
                    finish_call(connection, is_self_contained, end)?;
                    break;
                };
                // Boxed, because its future takes kilobytes and would be part of every query's future.
                connection = Box::pin(connection.renew(&pool)).await?;
                query = copy;
            }
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
            let again = connection.copy_for_retry(&query);
            let mut row = connection.session()?.fetch_optional(query).await;
            if let (Err(error), Some(query)) = (&row, again)
                && connection.is_stale_after(error)
            {
                // Boxed, as in `fetch_many`.
                connection = Box::pin(connection.renew(&pool)).await?;
                row = connection.session()?.fetch_optional(query).await;
            }
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
            Err(error)
                if is_self_contained || sqlstate::is_connection_lost(error) || sqlstate::is_stale_plan(error) =>
            {
                checked_out.release_failed(error);
            }
            _ => {}
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use crate::pool::TenantPool;
    use crate::tenant::TenantStatus;
    use sqlx::Executor;
    use sqlx::postgres::PgPool;

    #[tokio::test]
    async fn future_of_a_query_contains_none_that_opens_a_connection() {
        let pool = PgPool::connect_lazy("postgres://nowhere").unwrap();
        let pool = TenantPool::from_pool(crate::testing::tenant("acme", TenantStatus::Active), pool);
        // The future that opens a connection takes 14 kilobytes. They would be allocated and copied at each query.
        let query = (&pool).fetch_optional("SELECT 1");
        assert!(size_of_val(&*query) < 2048, "the future of a query takes {} bytes", size_of_val(&*query));
    }
}
