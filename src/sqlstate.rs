//! Decisions by SQLSTATE, never by message text: servers are localised. PostgreSQL manual, appendix A.
use std::borrow::Cow;

/// The five characters of a server's error, if `error` came from a server.
pub fn code(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(|e| e.code())
}

/// Whether the same statement may succeed later without anybody changing anything.
///
/// Classes 08 (connection), 40 (rollback), 53 (resources), 57P (operator), 55006 (in use), 55P03 (lock), 57014
/// (timeout), 25006 (read only: a failover), XX000 (`tuple concurrently updated`) and every failure of the transport.
pub fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(e) => e.code().is_some_and(|c| transient(&c)),
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

fn transient(code: &str) -> bool {
    ["08", "40", "53", "57P"].iter().any(|class| code.starts_with(class))
        || matches!(code, "55006" | "55P03" | "57014" | "25006" | "XX000")
}

/// Whether nobody comes in by this login with this password: it is shut or gone, or has another one.
pub(crate) fn is_refused_login(error: &sqlx::Error) -> bool {
    is(error, "28000") || is(error, "28P01")
}
/// Whether the session is over: whatever is sent on it next fails too.
pub fn is_connection_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(e) => e.code().is_some_and(|c| c.starts_with("08") || c.starts_with("57P")),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// 23505: a unique constraint; `Some` holds its name.
pub fn unique_violation(error: &sqlx::Error) -> Option<&str> {
    let error = error.as_database_error()?;
    if error.code().as_deref() == Some("23505") { Some(error.constraint().unwrap_or_default()) } else { None }
}

/// Class 22 (data), 23502 (null) and 23514 (check): the value itself is refused, and always will be.
pub fn is_bad_value(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|c| c.starts_with("22") || matches!(&*c, "23502" | "23514"))
}

/// 23503 (foreign key), 23505 (unique), 23P01 (exclusion): other rows stand in the way.
pub fn is_other_rows(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|c| matches!(&*c, "23503" | "23505" | "23P01"))
}

/// Whether the server answered with exactly this SQLSTATE.
pub fn is(error: &sqlx::Error, expected: &str) -> bool {
    code(error).as_deref() == Some(expected)
}

/// PostgreSQL's DETAIL, for people; empty if there is none. It is in the server's language: nothing is decided by it.
pub(crate) fn detail(error: &sqlx::Error) -> String {
    let error = error.as_database_error().and_then(|e| e.try_downcast_ref::<sqlx::postgres::PgDatabaseError>());
    error.and_then(|e| e.detail()).unwrap_or_default().replace('\n', "; ")
}

/// 42501: a right is missing.
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// 42P01: a table is missing.
pub const UNDEFINED_TABLE: &str = "42P01";
/// 42P04: the database exists.
pub const DUPLICATE_DATABASE: &str = "42P04";
/// 42710: the role exists.
pub const DUPLICATE_OBJECT: &str = "42710";
/// 53300: the server is full, or the login has all the sessions that it may have.
pub const TOO_MANY_CONNECTIONS: &str = "53300";
/// 42704: no such role.
pub const UNDEFINED_OBJECT: &str = "42704";
/// 3D000: no such database.
pub const INVALID_CATALOG_NAME: &str = "3D000";
/// 55P03: a lock was not to be had within the lock timeout.
pub(crate) const LOCK_NOT_AVAILABLE: &str = "55P03";
/// 2BP01: something depends on the role.
pub const DEPENDENT_OBJECTS: &str = "2BP01";
/// Whether another session holds or has just changed what the statement needs: 55P03 (lock timeout), 40P01 (deadlock),
/// XX000 (`tuple concurrently updated`). The same statement may succeed at once.
pub(crate) fn is_contended(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|c| matches!(&*c, "55P03" | "40P01" | "XX000"))
}

/// 55006: somebody is connected.
pub const OBJECT_IN_USE: &str = "55006";
/// 28000: not permitted to log in.
pub const INVALID_AUTHORIZATION: &str = "28000";
/// 28P01: wrong password, or no such role.
pub const INVALID_PASSWORD: &str = "28P01";
