//! The SQL that workers run on PostgreSQL servers, one module per task.
//!
//! `LockedSession` and the server operations call these functions with a session that they opened. All DDL is built in
//! [`ddl`], which quotes every name; all other statements are constants with bind parameters. Functions that change
//! something look at the catalogs first or accept an object that already exists or does not exist any more, so they may
//! be repeated.

/// SQL expression that turns off statement logging for the session, if the role has the right to. If the server logs no
/// statements anyway, the right is not looked up, because that takes a new session almost a millisecond.
macro_rules! silence_statement_log {
    () => {
        "CASE WHEN pg_catalog.current_setting('log_statement') OPERATOR(pg_catalog.<>) 'none'
              AND pg_catalog.has_parameter_privilege('log_statement', 'SET')
             THEN pg_catalog.set_config('log_statement', 'none', false) END"
    };
}

pub(crate) mod blockers;
pub(crate) mod bootstrap;
pub(crate) mod catalog;
pub(crate) mod ddl;
pub(crate) mod dependents;
pub(crate) mod ensure;
pub(crate) mod holders;
pub(crate) mod limits;
pub(crate) mod lock;
pub(crate) mod mark;
pub(crate) mod membership;
pub(crate) mod observe;
pub(crate) mod ownership;
pub(crate) mod readback;
pub(crate) mod refuse;
pub(crate) mod remaining;
pub(crate) mod retry;
pub(crate) mod scram;
pub(crate) mod script;
pub(crate) mod session;
pub(crate) mod standby;
pub(crate) mod terminate;

#[cfg(test)]
#[cfg(all(unix, feature = "testing"))]
pub(crate) mod tests;
