//! The one retry of a statement whose session is older than the tenant's schema.
//!
//! After a migration, a session that was opened before fails with 0A000 (the result of a prepared statement has other
//! columns now) or with XX000 (a type in its cache was dropped). The executor then runs the statement once more in a
//! newer session, under these conditions:
//!
//! - The call is one prepared statement of a kind that [`Query::repeatable`] allows, and the caller has seen no row of
//!   it. The executor's calls run outside a transaction block, so the failed statement was a transaction of its own and
//!   was rolled back.
//! - 0A000: the server's check of a plan before its execution reported it, so nothing was executed. The server names
//!   that check in the error's routine field, which is not translated. A function may raise 0A000 too; that error is the
//!   caller's.
//! - XX000: the tenant's share is retired, so its schema or its login has changed since the session was opened.
//!
//! The second result is the caller's, whatever it is.
use super::TenantPool;
use super::acquire::BorrowedConnection;
use super::query::Query;
use crate::sqlstate;
use sqlx::postgres::PgDatabaseError;

/// The function of PostgreSQL's plan cache that checks a prepared statement before each execution.
const PLAN_CHECK: &str = "RevalidateCachedQuery";

impl<'p> BorrowedConnection<'p> {
    /// A copy of the query for a retry, if a retry is possible at all. A pool of the application's own gets none.
    pub(super) fn copy_for_retry(&self, query: &Query) -> Option<Query> {
        match self {
            Self::Own(_) => None,
            Self::Budget(_) => query.repeatable(),
        }
    }

    /// Whether the statement failed because the session is older than the tenant's schema.
    pub(super) fn is_stale_after(&self, error: &sqlx::Error) -> bool {
        let Self::Budget(checked_out) = self else { return false };
        match sqlstate::code(error).as_deref() {
            Some(sqlstate::FEATURE_NOT_SUPPORTED) => is_plan_check(error),
            Some(sqlstate::INTERNAL_ERROR) => checked_out.is_retired(),
            _ => false,
        }
    }

    /// A session for the retry. If the share is retired, the tenant is resolved again and any session of its new share
    /// will do. Otherwise nothing is known about the age of the other sessions, so this one is replaced.
    pub(super) async fn renew(self, pool: &'p TenantPool) -> Result<BorrowedConnection<'p>, sqlx::Error> {
        match self {
            Self::Budget(checked_out) if checked_out.is_retired() => {
                checked_out.release_clean();
                pool.checkout().await
            }
            Self::Budget(checked_out) => Ok(Self::Budget(checked_out.replace_stale().await?)),
            own @ Self::Own(_) => Ok(own),
        }
    }
}

fn is_plan_check(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|e| e.try_downcast_ref::<PgDatabaseError>());
    error.and_then(|e| e.routine()) == Some(PLAN_CHECK)
}
