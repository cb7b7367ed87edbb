//! A query of sqlx, taken apart so that its text can be read before and after it runs.
//!
//! The two executors of this crate, for tenants' pools and for the landlord's pool, build one for each call.
use sqlx::postgres::{PgArguments, PgStatement};
use sqlx::{Execute, Postgres, SqlStr};

/// A query that was taken apart.
#[derive(Clone)]
pub(crate) struct Query {
    pub(crate) sql: SqlStr,
    pub(crate) statement: Option<PgStatement>,
    /// `None`: the simple query protocol, whose text may be several statements.
    pub(crate) arguments: Option<PgArguments>,
    persistent: bool,
}

impl Query {
    pub(crate) fn from<'q>(mut query: impl Execute<'q, Postgres>) -> Result<Self, sqlx::Error> {
        let arguments = query.take_arguments().map_err(sqlx::Error::Encode)?;
        let (statement, persistent) = (query.statement().cloned(), query.persistent());
        Ok(Self { sql: query.sql(), statement, arguments, persistent })
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
