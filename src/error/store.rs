use super::{BoxError, SharedError};
use crate::names::{DatabaseName, Domain, ServerName, Slug};
use crate::sqlstate;
use serde::{Deserialize, Serialize};
use std::{error::Error as StdError, fmt};

/// What a store (registry, vault, journal, tokens, nodes) answers when it cannot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// It did not answer, or not in time: nothing is known of the call's effect. The same call may be repeated.
    Unavailable(SharedError),
    /// The stored state is not the expected one: read it again and decide anew.
    Conflict(SharedError),
    /// A name belongs to somebody else.
    Taken(NameConflict),
    /// A newer worker has taken over: stop, and undo nothing.
    Fenced,
    /// It has crashed or failed over, and may have lost what was written last: take hold of the operation anew, and
    /// read what is known.
    LostWrites,
    /// It will never take this value (a NUL in a text, a number out of range): change it first.
    Refused(SharedError),
    /// A stored row cannot be read.
    Corrupt(SharedError),
}

/// What is taken already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NameConflict {
    /// Another tenant's slug.
    Slug(Slug),
    /// Another tenant's domain.
    Domain(Domain),
    /// Another tenant's database on that server.
    Database(ServerName, DatabaseName),
    /// The server has no room: full, draining or not ready.
    #[serde(rename = "room")]
    ServerFull(ServerName),
}

impl StoreError {
    /// [`StoreError::Unavailable`] with any cause.
    pub fn unavailable(cause: impl Into<BoxError>) -> Self {
        Self::Unavailable(SharedError::new(cause))
    }
    /// [`StoreError::Conflict`] with any cause.
    pub fn conflict(cause: impl Into<BoxError>) -> Self {
        Self::Conflict(SharedError::new(cause))
    }
    /// [`StoreError::Corrupt`] with any cause.
    pub fn corrupt(cause: impl Into<BoxError>) -> Self {
        Self::Corrupt(SharedError::new(cause))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(_) => f.write_str("the store did not answer; try again"),
            Self::Conflict(_) => f.write_str("the stored state is not the expected one; read it again"),
            Self::Taken(NameConflict::Slug(slug)) => write!(f, "the slug {slug} is taken; choose another"),
            Self::Taken(NameConflict::Domain(domain)) => write!(f, "the domain {domain} is taken; choose another"),
            Self::Taken(NameConflict::Database(server, name)) => {
                write!(f, "the database {name} on {server} belongs to another tenant; choose another name")
            }
            Self::Taken(NameConflict::ServerFull(server)) => write!(f, "the server {server} takes no more tenants"),
            Self::Fenced => f.write_str("a newer worker has taken over; this one has stopped"),
            Self::LostWrites => f.write_str("the store has crashed or failed over since; read again what it knows"),
            Self::Refused(_) => f.write_str("the store does not take this value; change it"),
            Self::Corrupt(_) => f.write_str("a stored row cannot be read"),
        }
    }
}
impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Unavailable(c) | Self::Conflict(c) | Self::Refused(c) | Self::Corrupt(c) => Some(c.as_dyn()),
            Self::Taken(_) | Self::Fenced | Self::LostWrites => None,
        }
    }
}
impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::corrupt(error),
            _ if sqlstate::is_bad_value(&error) => Self::Refused(SharedError::new(error)),
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
