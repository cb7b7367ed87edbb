//! One connection of the landlord's pool while a statement runs on it, and what happens to it if the statement is too
//! late.
//!
//! Invariants:
//! - The connection is in exactly one of three places: with its caller, back in the pool, or in a clean-up task.
//! - A clean-up task ends within the rest of the deadline plus five seconds, also if the landlord does not answer.
use super::LandlordPool;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection, Executor, Postgres, SqlStr};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};

/// Limits of the time for cancelling a statement, including a login. Within them it is the deadline itself.
const CANCEL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));
/// The `application_name` of the sessions that cancel statements.
const CANCEL_APPLICATION: &str = "tenantry cancel";
/// Cancels each statement with this text that the same login began at least `$2` seconds ago, on any node. sqlx does not
/// tell the process id of a session, and the session cannot be asked while it waits. PostgreSQL shows only the first
/// bytes of a long text. The names are qualified, because the search path is the application's.
const CANCEL_STATEMENT: &str = "SELECT pg_catalog.count(pg_catalog.pg_cancel_backend(pid))
    FROM pg_catalog.pg_stat_activity
    WHERE datname = pg_catalog.current_database() AND usename = session_user AND pid <> pg_catalog.pg_backend_pid()
      AND state = 'active' AND query = pg_catalog.left($1,
          pg_catalog.pg_size_bytes(pg_catalog.current_setting('track_activity_query_size'))::integer - 1)
      AND pg_catalog.clock_timestamp() - query_start >= pg_catalog.make_interval(secs => $2)";

/// A connection that is in use. If it is dropped before [`finish`](Self::finish), a task cleans up.
pub(super) struct Call {
    connection: Option<PoolConnection<Postgres>>,
    landlord: LandlordPool,
    /// Text of the statement; `None` in a transaction.
    sql: Option<SqlStr>,
    until: Instant,
}

impl Call {
    /// Takes a connection from the pool, within the deadline. The deadline of the statement begins after that.
    pub(super) async fn start(landlord: &LandlordPool, sql: Option<SqlStr>) -> Result<Self, sqlx::Error> {
        match timeout(landlord.deadline, landlord.pool.acquire()).await {
            Ok(connection) => {
                let until = Instant::now() + landlord.deadline;
                Ok(Self { connection: Some(connection?), landlord: landlord.clone(), sql, until })
            }
            Err(_) => Err(landlord.error_after_deadline("gave no connection")),
        }
    }
    pub(super) fn until(&self) -> Instant {
        self.until
    }
    /// Gives the call more time than the deadline of a statement.
    pub(super) fn extend(&mut self, until: Instant) {
        self.until = until;
    }
    /// The connection. Never an error before [`finish`](Self::finish).
    pub(super) fn session(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.connection.as_deref_mut().ok_or(sqlx::Error::WorkerCrashed)
    }

    /// Gives the connection back, and returns what the statement returned. After the deadline, it cancels the statement
    /// and returns an error.
    pub(super) async fn finish<T>(mut self, outcome: Result<T, Elapsed>) -> Result<T, sqlx::Error> {
        match outcome {
            Ok(outcome) => {
                match (self.connection.take(), Handle::try_current()) {
                    (Some(connection), Ok(runtime)) => {
                        drop(runtime.spawn(give_back(connection, self.landlord.deadline)))
                    }
                    (connection, _) => drop(connection),
                }
                Ok(outcome)
            }
            Err(_) => {
                let error = self.landlord.error_after_deadline("did not answer a statement");
                self.roll_back().await;
                Err(error)
            }
        }
    }
    /// Cancels the statement that still runs, or rolls the transaction back. The connection then returns to the pool, or
    /// is closed.
    pub(super) async fn roll_back(mut self) {
        if let Some(clean_up) = self.clean_up() {
            // In a task of its own, because the caller may drop this future too.
            let _ = tokio::spawn(clean_up).await;
        }
    }

    /// The work after a call that was too late or was dropped. A dropped call still has the rest of its deadline.
    fn clean_up(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let mut connection = self.connection.take()?;
        let (landlord, sql, until) = (self.landlord.clone(), self.sql.take(), self.until);
        Some(async move {
            let answer = match &sql {
                Some(_) => timeout_at(until, connection.ping()).await,
                None => timeout_at(until, roll_back(&mut connection)).await,
            };
            match (answer, sql) {
                (Ok(Ok(())), _) => return give_back(connection, landlord.deadline).await,
                (Err(_), Some(sql)) => landlord.cancel(sql).await,
                // The server ends the transaction: each of its statements has a `statement_timeout`.
                (Err(_), None) | (Ok(Err(_)), _) => {}
            }
            // Closes the socket, and frees the connection's place in the pool at once.
            drop(connection.detach());
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        match (self.clean_up(), Handle::try_current()) {
            (Some(clean_up), Ok(runtime)) => drop(runtime.spawn(clean_up)),
            (clean_up, _) => drop(clean_up),
        }
    }
}

/// Returns a connection to the pool. sqlx pings it before that, and without a limit: a connection that goes silent at that
/// moment would keep its place in the pool.
async fn give_back(mut connection: PoolConnection<Postgres>, limit: Duration) {
    let returned = timeout(limit, connection.return_to_pool()).await;
    if returned.is_err() {
        tracing::warn!("a connection to the landlord went silent and is closed");
    }
}

async fn roll_back(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql("ROLLBACK")).await.map(drop)
}

impl LandlordPool {
    /// Cancels a statement that is too late. Logs the outcome.
    async fn cancel(&self, sql: SqlStr) {
        match timeout(self.deadline.clamp(CANCEL.0, CANCEL.1), self.cancel_statements(sql)).await {
            Ok(Ok(cancelled)) => tracing::warn!(cancelled, "a statement on the landlord was too late and is cancelled"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a statement on the landlord was too late and cannot be cancelled");
            }
            Err(_) => tracing::warn!("a statement on the landlord was too late, and the landlord does not answer"),
        }
    }

    async fn cancel_statements(&self, sql: SqlStr) -> Result<i64, sqlx::Error> {
        // The semaphore is never closed. If it were, cancelling without the limit would be right.
        let _permit = self.cancellers.acquire().await.ok();
        let options = self.pool.connect_options().as_ref().clone().application_name(CANCEL_APPLICATION);
        let mut session = crate::rt::poll_batched(options.connect()).await?;
        // The server may have begun the statement a little later than this client.
        let age = self.deadline.mul_f64(0.9).as_secs_f64();
        let cancel = sqlx::query_scalar(CANCEL_STATEMENT).bind(sql.as_str().to_owned()).bind(age);
        let cancelled = cancel.persistent(false).fetch_one(&mut session).await?;
        session.close().await?;
        Ok(cancelled)
    }

    fn error_after_deadline(&self, problem: &str) -> sqlx::Error {
        let text = format!("the landlord {problem} within {:?}", self.deadline);
        sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
    }
}
