//! A transaction on the landlord. The server ends each of its statements after the deadline, so the connection stays
//! usable. A limit for the whole transaction covers a landlord that does not answer at all.
use super::LandlordPool;
use super::call::Call;
use crate::error::StoreError;
use crate::sql::Ddl;
use sqlx::Executor;
use sqlx::postgres::PgConnection;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Minimum limit of the whole transaction. Between two statements the vault may call the key provider.
const TRANSACTION: Duration = Duration::from_secs(30);

impl LandlordPool {
    /// Runs `work` in a transaction that begins with the statement `begin`. Commits if `work` succeeds, and rolls back
    /// if it fails or the future is dropped. The server ends each of its statements after the deadline.
    pub(crate) async fn transaction<T, E: From<StoreError>>(
        &self, begin: &'static str, work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut call = self.begin(begin).await.map_err(StoreError::from)?;
        let until = Instant::now() + TRANSACTION.max(self.deadline * 2);
        call.extend(until);
        let session = call.session().map_err(StoreError::from)?;
        let outcome = timeout_at(until, async {
            let value = work(session).await?;
            session.execute(sqlx::raw_sql("COMMIT")).await.map_err(StoreError::from)?;
            Ok(value)
        });
        match outcome.await {
            Ok(Err(error)) => {
                call.roll_back().await;
                Err(error)
            }
            outcome => call.finish(outcome).await.map_err(StoreError::from)?,
        }
    }

    async fn begin(&self, statement: &'static str) -> Result<Call, sqlx::Error> {
        let mut call = Call::start(self, None).await?;
        let (until, session) = (call.until(), call.session()?);
        // Both statements in one round trip: they are a constant text and a number.
        let begin = Ddl(format!("{statement}; SET LOCAL statement_timeout = {}", self.deadline.as_millis()));
        match timeout_at(until, begin.execute(session)).await {
            Ok(begun) => begun.map(|()| call),
            Err(late) => call.finish(Err::<Result<Call, sqlx::Error>, _>(late)).await?,
        }
    }
}
