//! What one attempt to get a connection ended with.
//!
//! A search for a connection makes one attempt after the other, each at the tenant's replica or at its primary.
use super::budget::{Acquired, PgAcquired, PgCheckedOut};
use crate::sqlstate::{self, INVALID_AUTHORIZATION, INVALID_PASSWORD};

pub(super) enum Attempt {
    Connection(PgCheckedOut<'static>),
    /// The share is retired: the tenant was evicted from the cache, or its entry has changed.
    Retired,
    /// The server refused the login or its password.
    LoginRefused(sqlx::Error),
    /// The replica has no connection for this caller now.
    UsePrimary,
}

impl Attempt {
    /// The attempt at one server. An error stays one, unless a new login can help.
    pub(super) fn from_result(result: Result<PgAcquired, sqlx::Error>) -> Result<Self, sqlx::Error> {
        match result {
            Ok(Acquired::Connection(checked_out)) => Ok(Self::Connection(checked_out)),
            Ok(Acquired::Retired) => Ok(Self::Retired),
            Err(error) if is_refused(&error) => Ok(Self::LoginRefused(error)),
            Err(error) => Err(error),
        }
    }
}

/// Whether the server refused the login (28000) or its password (28P01): the tenant was suspended, or another node has
/// rotated the login.
fn is_refused(error: &sqlx::Error) -> bool {
    sqlstate::code(error).is_some_and(|c| matches!(&*c, INVALID_AUTHORIZATION | INVALID_PASSWORD))
}
