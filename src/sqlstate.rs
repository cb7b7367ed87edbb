//! Classification of sqlx errors by SQLSTATE (PostgreSQL manual, appendix A).
//!
//! All layers decide with these functions whether to retry, fail or continue after an error.
//!
//! Invariant: no decision depends on the text of a message, because servers may be set to any language.
use std::borrow::Cow;

/// The five-character SQLSTATE. `None` if the error does not come from a PostgreSQL server.
pub fn code(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(|e| e.code())
}

/// Whether the same statement may succeed later without a change by a person.
///
/// This is the case for the classes 08 (connection), 40 (rollback), 53 (resources) and 57P (operator intervention), for
/// the states 55006 (object in use), 55P03 (lock timeout), 57014 (statement timeout), 25006 (read-only, after a
/// failover) and XX000 (`tuple concurrently updated`), and for the I/O, protocol and pool errors of sqlx.
pub fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(e) => e.code().is_some_and(|c| is_transient_code(&c)),
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

fn is_transient_code(code: &str) -> bool {
    ["08", "40", "53", "57P"].iter().any(|class| code.starts_with(class))
        || matches!(code, "55006" | "55P03" | "57014" | "25006" | "XX000")
}

/// Whether the server refused a login: the role does not exist, is NOLOGIN, or has another password.
pub(crate) fn is_refused_login(error: &sqlx::Error) -> bool {
    is(error, "28000") || is(error, "28P01")
}
/// Whether the session has ended, so that every further statement on it fails too.
pub fn is_connection_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(e) => e.code().is_some_and(|c| c.starts_with("08") || c.starts_with("57P")),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// The name of the violated unique constraint if the SQLSTATE is 23505. The name is empty if the server did not send
/// it.
pub fn unique_violation(error: &sqlx::Error) -> Option<&str> {
    let error = error.as_database_error()?;
    if error.code().as_deref() == Some("23505") { Some(error.constraint().unwrap_or_default()) } else { None }
}

/// Whether the statement conflicts with other rows: 23503 (foreign key), 23505 (unique) or 23P01 (exclusion).
pub fn is_conflicting_row(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|c| matches!(&*c, "23503" | "23505" | "23P01"))
}

/// Whether the server answered with exactly this SQLSTATE.
pub fn is(error: &sqlx::Error, expected: &str) -> bool {
    code(error).as_deref() == Some(expected)
}

/// PostgreSQL's DETAIL message in one line, to be shown to people; empty if there is none. It is in the server's
/// language, so no decision may depend on it.
pub(crate) fn detail(error: &sqlx::Error) -> String {
    let error = error.as_database_error().and_then(|e| e.try_downcast_ref::<sqlx::postgres::PgDatabaseError>());
    error.and_then(|e| e.detail()).unwrap_or_default().replace('\n', "; ")
}

/// The server's message with its DETAIL and HINT, to be shown to people. `None` if the error is not a server's.
pub(crate) fn server_text(error: &sqlx::Error) -> Option<String> {
    let sqlx::Error::Database(database) = error else { return None };
    let mut text = database.message().to_owned();
    let Some(server) = database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() else { return Some(text) };
    // Of 23502 (not null) and 23514 (check), the DETAIL contains all values of the row.
    let detail = server.detail().filter(|_| !matches!(server.code(), "23502" | "23514"));
    for (label, part) in [("DETAIL", detail), ("HINT", server.hint())] {
        if let Some(part) = part {
            text.push_str(&format!("; {label}: {}", part.replace('\n', "; ")));
        }
    }
    Some(text)
}

/// 22023: a parameter has a value that the server does not allow, such as a locale that does not fit an encoding.
pub(crate) const INVALID_PARAMETER_VALUE: &str = "22023";
/// 42501: the role lacks a right.
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// 42P01: the table does not exist.
pub const UNDEFINED_TABLE: &str = "42P01";
/// 42P04: the database already exists.
pub const DUPLICATE_DATABASE: &str = "42P04";
/// 42710: the role already exists.
pub const DUPLICATE_OBJECT: &str = "42710";
/// 53300: the connection limit of the server, of the database or of the login is reached.
pub const TOO_MANY_CONNECTIONS: &str = "53300";
/// 42704: the role does not exist.
pub const UNDEFINED_OBJECT: &str = "42704";
/// 3D000: the database does not exist.
pub const INVALID_CATALOG_NAME: &str = "3D000";
/// 55P03: the statement did not get a lock within `lock_timeout`.
pub(crate) const LOCK_NOT_AVAILABLE: &str = "55P03";
/// Whether the server reported 0A000, as it does if the result of a prepared statement has other columns than when it
/// was prepared. The session reports the same each time, until the statement is prepared again.
pub(crate) fn is_stale_plan(error: &sqlx::Error) -> bool {
    is(error, FEATURE_NOT_SUPPORTED)
}

/// 0A000: the feature is not supported, or the plan of a prepared statement is out of date.
pub(crate) const FEATURE_NOT_SUPPORTED: &str = "0A000";
/// XX000: an internal error, for example that a type in the session's cache was dropped.
pub(crate) const INTERNAL_ERROR: &str = "XX000";
/// 2BP01: other objects depend on the role.
pub const DEPENDENT_OBJECTS: &str = "2BP01";
/// Whether a concurrent session has locked or just changed a row that the statement needs: 55P03 (lock timeout), 40P01
/// (deadlock) or XX000 (`tuple concurrently updated`). An immediate retry may succeed.
pub(crate) fn is_contended(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|c| matches!(&*c, "55P03" | "40P01" | "XX000"))
}

/// 55006: sessions are connected to the database.
pub const OBJECT_IN_USE: &str = "55006";
/// 28000: the role is not permitted to log in.
pub const INVALID_AUTHORIZATION: &str = "28000";
/// 28P01: the password is wrong, or the role does not exist.
pub const INVALID_PASSWORD: &str = "28P01";
