//! SQL that is made from names: the type for it, and how a name or a text is quoted. Statements for database servers are
//! made in `cluster::pg::ddl`; nothing else turns text into SQL.
use crate::error::ClusterError;
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use std::time::Duration;

/// For a server that is gone without a word: one that is there ends a statement earlier, by `statement_timeout`.
const ANSWER: Duration = Duration::from_secs(6 * 60);
/// SQL that is safe to run: made here, nowhere else. No Debug: it may hold a verifier.
pub(crate) struct Ddl(pub(crate) String);
impl Ddl {
    pub(crate) fn block(statements: impl IntoIterator<Item = String>) -> Self {
        let mut sql = String::from("BEGIN; ");
        for statement in statements {
            sql.push_str(&statement);
            sql.push_str("; ");
        }
        sql.push_str("COMMIT");
        Self(sql)
    }
    /// Runs it. After an error inside a block the session is in a failed transaction, and is to be dropped.
    pub(crate) async fn run(self, session: &mut PgConnection, phase: &'static str) -> Result<(), ClusterError> {
        self.execute(session).await.map_err(ClusterError::sql(phase))
    }
    /// The same for a caller that decides by SQLSTATE.
    #[expect(clippy::disallowed_methods, reason = "made by a module that quotes")]
    pub(crate) async fn execute(self, session: &mut PgConnection) -> Result<(), sqlx::Error> {
        let statement = session.execute(sqlx::raw_sql(AssertSqlSafe(self.0)));
        match tokio::time::timeout(ANSWER, statement).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
        }
    }
    /// A question with one answer. By the simple protocol it takes one message there and one back.
    #[expect(clippy::disallowed_methods, reason = "made by a module that quotes")]
    pub(crate) async fn ask(self, session: &mut PgConnection) -> Result<bool, sqlx::Error> {
        session.fetch_one(sqlx::raw_sql(AssertSqlSafe(self.0))).await?.try_get(0)
    }
    /// For a script that a person runs.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}
/// An identifier: quotes doubled. It has no NUL by its type.
pub(crate) fn id(name: &impl AsRef<str>) -> String {
    format!("\"{}\"", name.as_ref().replace('"', "\"\""))
}
/// A literal: quotes doubled; a backslash means itself, since `standard_conforming_strings` is on in every session.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
