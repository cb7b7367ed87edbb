//! The cluster: every statement that a worker runs on a PostgreSQL server, and what it looks at before.
pub(crate) mod catalog;
pub(crate) mod ddl;
pub(crate) mod end;
pub(crate) mod ensure;
pub(crate) mod lock;
pub(crate) mod replay;
pub(crate) mod scram;
pub(crate) mod script;
pub(crate) mod session;
pub(crate) mod setup;

#[cfg(test)]
#[cfg(all(unix, feature = "testing"))]
pub(crate) mod tests;
