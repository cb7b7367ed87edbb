use super::{BoxError, Cause};
use crate::names::{DatabaseName, Domain, ServerName, Slug};
use crate::sqlstate;
use serde::{Deserialize, Serialize};
use std::{error::Error as StdError, fmt};

/// What a store (registry, vault, journal, tokens, nodes) answers when it cannot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// It did not answer, or not in time: nothing is known of the call's effect. The same call may be repeated.
    Unavailable(Cause),
    /// The stored state is not the expected one: read it again and decide anew.
    Conflict(Cause),
    /// A name belongs to somebody else.
    Taken(Taken),
    /// A newer worker has taken over: stop, and undo nothing.
    Fenced,
    /// It has crashed or failed over, and may have lost what was written last: take hold of the operation anew, and
    /// read what is known.
    Forgotten,
    /// It will never take this value (a NUL in a text, a number out of range): change it first.
    Refused(Cause),
    /// A stored row cannot be read.
    Corrupt(Cause),
}

/// What is taken already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Taken {
    /// Another tenant's slug.
    Slug(Slug),
    /// Another tenant's domain.
    Domain(Domain),
    /// Another tenant's database on that server.
    Database(ServerName, DatabaseName),
    /// The server has no room: full, draining or not ready.
    Room(ServerName),
}

impl StoreError {
    /// [`StoreError::Unavailable`] with any cause.
    pub fn unavailable(cause: impl Into<BoxError>) -> Self {
        Self::Unavailable(Cause::new(cause))
    }
    /// [`StoreError::Conflict`] with any cause.
    pub fn conflict(cause: impl Into<BoxError>) -> Self {
        Self::Conflict(Cause::new(cause))
    }
    /// [`StoreError::Corrupt`] with any cause.
    pub fn corrupt(cause: impl Into<BoxError>) -> Self {
        Self::Corrupt(Cause::new(cause))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(_) => f.write_str("the store did not answer; try again"),
            Self::Conflict(_) => f.write_str("the stored state is not the expected one; read it again"),
            Self::Taken(Taken::Slug(slug)) => write!(f, "the slug {slug} is taken; choose another"),
            Self::Taken(Taken::Domain(domain)) => write!(f, "the domain {domain} is taken; choose another"),
            Self::Taken(Taken::Database(server, name)) => {
                write!(f, "the database {name} on {server} belongs to another tenant; choose another name")
            }
            Self::Taken(Taken::Room(server)) => write!(f, "the server {server} takes no more tenants"),
            Self::Fenced => f.write_str("a newer worker has taken over; this one has stopped"),
            Self::Forgotten => f.write_str("the store has crashed or failed over since; read again what it knows"),
            Self::Refused(_) => f.write_str("the store does not take this value; change it"),
            Self::Corrupt(_) => f.write_str("a stored row cannot be read"),
        }
    }
}
impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Unavailable(c) | Self::Conflict(c) | Self::Refused(c) | Self::Corrupt(c) => Some(c.as_dyn()),
            Self::Taken(_) | Self::Fenced | Self::Forgotten => None,
        }
    }
}
impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::corrupt(error),
            _ if sqlstate::is_bad_value(&error) => Self::Refused(Cause::new(error)),
            _ => Self::unavailable(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_cause_still_downcasts() {
        let error = StoreError::from(sqlx::Error::RowNotFound);
        assert!(error.clone().source().unwrap().downcast_ref::<sqlx::Error>().is_some());
    }
}
