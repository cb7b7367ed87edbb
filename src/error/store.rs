//! The error of the landlord's stores: registry, vault, journal, tokens and nodes.
//!
//! Every store implementation returns it. The saga engine relies on the variants `Unavailable`, `Fenced` and
//! `LostWrites` to decide whether a worker retries, stops or claims its operation again.
use super::{BoxError, SharedError, UntrustedAddress, VaultError};
use crate::names::{DatabaseName, Domain, InvalidName, ServerName, Slug};
use crate::sqlstate;
use serde::{Deserialize, Serialize};
use std::{error::Error as StdError, fmt, time::Duration};

/// The reason why a store (registry, vault, journal, tokens, nodes) failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// The store did not answer in time, or its answer was lost. The call may or may not have had its effect. It may be
    /// repeated.
    Unavailable(SharedError),
    /// Other calls changed the same rows at each attempt, so this call changed nothing. It may be repeated.
    Contended(SharedError),
    /// A secret could not be sealed or opened, for example because the key provider did not answer.
    Secret(Box<VaultError>),
    /// The stored state is not the one that the caller expected. Read it again before the next attempt.
    Conflict(SharedError),
    /// Another tenant has the name, or the server cannot take the tenant.
    Taken(NameConflict),
    /// A newer worker has taken over the operation. This worker must stop and undo nothing.
    Fenced,
    /// The store has crashed or failed over and may have lost its latest writes. The worker must claim the operation
    /// again and continue from the stored state.
    LostWrites,
    /// The store never accepts this call: a value is out of range or too long, or the store's role lacks a right. The
    /// source names the field and the rule, or has the server's message.
    Refused(SharedError),
    /// A stored row cannot be parsed. The source is an [`UnreadableRow`](super::UnreadableRow) if the row is known.
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
    /// Creates a [`StoreError::Contended`] from any cause.
    pub fn contended(cause: impl Into<BoxError>) -> Self {
        Self::Contended(SharedError::new(cause))
    }
    /// Creates a [`StoreError::Refused`] from any cause.
    pub fn refused(cause: impl Into<BoxError>) -> Self {
        Self::Refused(SharedError::new(cause))
    }
    /// Refuses a value that breaks a rule.
    pub(crate) fn invalid(field: &'static str, rule: InvalidName) -> Self {
        Self::refused(InvalidField { field, source: rule })
    }
    /// Whether the same call may succeed later without a change by a person.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Contended(_) | Self::LostWrites => true,
            Self::Secret(error) => error.is_transient(),
            Self::Conflict(_)
            | Self::Taken(_)
            | Self::Fenced
            | Self::Refused(_)
            | Self::Corrupt(_)
            | Self::Untrusted(_) => false,
        }
    }
    /// How long to wait before the same call may succeed. `None` if it cannot succeed until something is changed.
    pub fn retry_after(&self) -> Option<Duration> {
        self.is_transient().then_some(Duration::from_secs(1))
    }
    /// Creates a [`StoreError::Corrupt`] from any cause.
    pub fn corrupt(cause: impl Into<BoxError>) -> Self {
        Self::Corrupt(SharedError::new(cause))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(_) => f.write_str("the landlord did not answer; try again"),
            Self::Contended(_) => f.write_str("other calls changed the same rows of the landlord; try again"),
            Self::Secret(error) => error.fmt(f),
            Self::Conflict(_) => {
                f.write_str("the state in the landlord is not the expected one; read it again, then decide")
            }
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
                f.write_str("the landlord has crashed or failed over and may have lost writes; read its state again")
            }
            Self::Refused(_) => f.write_str("the landlord does not accept this call, and a retry would fail too"),
            Self::Corrupt(_) => f.write_str("a row in the landlord cannot be used until it is corrected"),
            Self::Untrusted(_) => f.write_str("the stored address of a server is not trusted"),
        }
    }
}
impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Unavailable(c) | Self::Contended(c) | Self::Conflict(c) | Self::Refused(c) | Self::Corrupt(c) => {
                Some(c.as_dyn())
            }
            Self::Secret(error) => error.source(),
            Self::Untrusted(address) => Some(address),
            Self::Taken(_) | Self::Fenced | Self::LostWrites => None,
        }
    }
}
impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::corrupt(error),
            sqlx::Error::Encode(_) => Self::refused(error),
            _ if sqlstate::is_conflicting_row(&error) => Self::conflict(error),
            // The server has answered, so the call has had no effect and will not have one later.
            sqlx::Error::Database(_) if !sqlstate::is_transient(&error) => Self::refused(error),
            _ => Self::unavailable(error),
        }
    }
}
impl From<VaultError> for StoreError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Store(error) => error,
            error => Self::Secret(Box::new(error)),
        }
    }
}

/// A value that breaks a rule of the stores.
#[derive(Debug, thiserror::Error)]
#[error("the {field} cannot be stored")]
struct InvalidField {
    field: &'static str,
    source: InvalidName,
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
