//! SQL that is built at run time from names and texts: the type [`Ddl`] and the functions that quote.
//!
//! `cluster::pg::ddl` builds the statements for database servers, and the administrator store builds its own. A `Ddl`
//! is executed by the simple query protocol, because PostgreSQL accepts no parameters in DDL.
//!
//! Invariant: every name and text in a `Ddl` is quoted by [`id`] or [`literal`].
use crate::error::ClusterError;
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use std::time::Duration;

/// Time limit of one statement, for a server that has vanished without closing the connection. A server that is
/// reachable ends the statement earlier by `statement_timeout`.
const STATEMENT_LIMIT: Duration = Duration::from_secs(6 * 60);
/// SQL whose names and texts are quoted, so that it is safe to execute. It does not implement `Debug`, because it may
/// contain a password verifier.
pub(crate) struct Ddl(pub(crate) String);
impl Ddl {
    /// Joins the statements into one transaction block.
    pub(crate) fn block(statements: impl IntoIterator<Item = String>) -> Self {
        let mut sql = String::from("BEGIN; ");
        for statement in statements {
            sql.push_str(&statement);
            sql.push_str("; ");
        }
        sql.push_str("COMMIT");
        Self(sql)
    }
    /// Begins a transaction block with these statements. The caller ends it with the SQL that it sends next.
    pub(crate) fn begin(statements: impl IntoIterator<Item = String>) -> Self {
        let mut sql = Self::block(statements).0;
        sql.truncate(sql.len() - "; COMMIT".len());
        Self(sql)
    }
    /// Executes the SQL. An error inside a block leaves the session in a failed transaction, so the caller must drop
    /// the session.
    pub(crate) async fn run(self, session: &mut PgConnection, phase: &'static str) -> Result<(), ClusterError> {
        self.execute(session).await.map_err(ClusterError::sql(phase))
    }
    /// Executes the SQL and returns the original sqlx error, for a caller that distinguishes errors by SQLSTATE.
    #[expect(clippy::disallowed_methods, reason = "built by a module that quotes")]
    pub(crate) async fn execute(self, session: &mut PgConnection) -> Result<(), sqlx::Error> {
        let statement = session.execute(sqlx::raw_sql(AssertSqlSafe(self.0)));
        match tokio::time::timeout(STATEMENT_LIMIT, statement).await {
            Ok(result) => result.map(drop),
            Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
        }
    }
    /// Executes a query and returns the boolean in its first column. The simple query protocol needs one round trip.
    #[expect(clippy::disallowed_methods, reason = "built by a module that quotes")]
    pub(crate) async fn fetch_bool(self, session: &mut PgConnection) -> Result<bool, sqlx::Error> {
        session.fetch_one(sqlx::raw_sql(AssertSqlSafe(self.0))).await?.try_get(0)
    }
    /// The SQL as text, for a script that an administrator runs.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}
/// Quotes an identifier: adds double quotes and doubles those inside. The name types exclude NUL characters.
pub(crate) fn quote_identifier(name: &impl AsRef<str>) -> String {
    format!("\"{}\"", name.as_ref().replace('"', "\"\""))
}
/// Quotes a string literal: adds single quotes and doubles those inside. A backslash needs no escape, because
/// `standard_conforming_strings` is on in every session.
pub(crate) fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
