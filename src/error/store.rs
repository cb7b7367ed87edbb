//! The error of the landlord's stores: registry, vault, journal, tokens and nodes.
//!
//! Every store implementation returns it. The saga engine relies on the variants `Unavailable`, `Fenced` and
//! `LostWrites` to decide whether a worker retries, stops or claims its operation again.
use super::{BoxError, SharedError, UntrustedAddress};
use crate::names::{DatabaseName, Domain, ServerName, Slug};
use crate::sqlstate;
use serde::{Deserialize, Serialize};
use std::{error::Error as StdError, fmt};

/// The reason why a store (registry, vault, journal, tokens, nodes) failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// The store did not answer in time, or its answer was lost. The call may or may not have had its effect. It may be
    /// repeated.
    Unavailable(SharedError),
    /// The stored state is not the one that the caller expected. Read it again before the next attempt.
    Conflict(SharedError),
    /// Another tenant has the name, or the server cannot take the tenant.
    Taken(NameConflict),
    /// A newer worker has taken over the operation. This worker must stop and undo nothing.
    Fenced,
    /// The store has crashed or failed over and may have lost its latest writes. The worker must claim the operation
    /// again and continue from the stored state.
    LostWrites,
    /// The store never accepts this value, for example a NUL in a text or a number out of range.
    Refused(SharedError),
    /// A stored row cannot be parsed.
    Corrupt(SharedError),
    /// The stored address of a server is not one that this process connects to.
    Untrusted(UntrustedAddress),
}

/// What is not available: a slug, domain or database name that another tenant has, or capacity on a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NameConflict {
    /// Another tenant has this slug.
    Slug(Slug),
    /// Another tenant has this domain.
    Domain(Domain),
    /// Another tenant has the database of this name on this server.
    Database(ServerName, DatabaseName),
    /// The server cannot take another tenant: it is full, draining or not ready.
    #[serde(rename = "room")]
    ServerFull(ServerName),
}

impl StoreError {
    /// Creates a [`StoreError::Unavailable`] from any cause.
    pub fn unavailable(cause: impl Into<BoxError>) -> Self {
        Self::Unavailable(SharedError::new(cause))
    }
    /// Creates a [`StoreError::Conflict`] from any cause.
    pub fn conflict(cause: impl Into<BoxError>) -> Self {
        Self::Conflict(SharedError::new(cause))
    }
    /// Creates a [`StoreError::Corrupt`] from any cause.
    pub fn corrupt(cause: impl Into<BoxError>) -> Self {
        Self::Corrupt(SharedError::new(cause))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(_) => f.write_str("the store did not answer; try again"),
            Self::Conflict(_) => f.write_str("the stored state is not the expected one; read it again and retry"),
            Self::Taken(NameConflict::Slug(slug)) => write!(f, "the slug {slug} is taken; choose another"),
            Self::Taken(NameConflict::Domain(domain)) => write!(f, "the domain {domain} is taken; choose another"),
            Self::Taken(NameConflict::Database(server, name)) => {
                write!(f, "the database {name} on {server} belongs to another tenant; choose another name")
            }
            Self::Taken(NameConflict::ServerFull(server)) => {
                write!(f, "the server {server} is full, draining or not ready; choose another")
            }
            Self::Fenced => f.write_str("a newer worker has taken over this operation; this worker stops"),
            Self::LostWrites => {
                f.write_str("the store has crashed or failed over and may have lost writes; read its state again")
            }
            Self::Refused(_) => f.write_str("the store does not accept this value; change it"),
            Self::Corrupt(_) => f.write_str("a stored row cannot be parsed"),
            Self::Untrusted(_) => f.write_str("the stored address of a server is not trusted"),
        }
    }
}
impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Unavailable(c) | Self::Conflict(c) | Self::Refused(c) | Self::Corrupt(c) => Some(c.as_dyn()),
            Self::Untrusted(address) => Some(address),
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
    fn source_of_a_cloned_store_error_downcasts_to_the_original_type() {
        let error = StoreError::from(sqlx::Error::RowNotFound);
        assert!(
            error.clone().source().unwrap().downcast_ref::<sqlx::Error>().is_some(),
            "the source of a cloned StoreError is no sqlx::Error"
        );
    }
}
