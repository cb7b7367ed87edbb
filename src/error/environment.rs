//! The error for an environment variable of PostgreSQL that would change connections.
//!
//! `Builder::build` and a set-up return it before they connect.

/// The process has an environment variable that would change every connection to a server or a tenant's database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "sqlx takes the variable {variable} into every connection and cannot unset it; remove it from the environment, or \
     call accept_pg_environment() on the builder"
)]
#[non_exhaustive]
pub struct InheritedVariable {
    /// Name of the variable.
    pub variable: &'static str,
}
impl InheritedVariable {
    pub(crate) fn new(variable: &'static str) -> Self {
        Self { variable }
    }
}
