//! The cluster: every statement that a worker runs on a PostgreSQL server, and what it looks at before.

/// What keeps a session's statements out of the server's log, where it may. An expression. Where none are logged anyway the
/// right is not looked up: that takes a new session the better part of a millisecond.
macro_rules! quiet {
    () => {
        "CASE WHEN pg_catalog.current_setting('log_statement') OPERATOR(pg_catalog.<>) 'none'
              AND pg_catalog.has_parameter_privilege('log_statement', 'SET')
             THEN pg_catalog.set_config('log_statement', 'none', false) END"
    };
}

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
