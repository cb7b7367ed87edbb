use super::{Failure, StoreError};
use crate::names::{Domain, InvalidName, ServerName, Slug};
use crate::operation::OperationId;
use std::time::Duration;

/// Why no tenant came of a call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// A field breaks a rule; nothing was begun.
    #[error("the {field} {value:?} is not valid")]
    #[non_exhaustive]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What was given.
        value: String,
        /// The rule.
        source: InvalidName,
    },
    /// The host's input is no JSON; nothing was begun.
    #[error("the input cannot be stored as JSON")]
    Input(#[source] serde_json::Error),
    /// Another tenant has it.
    #[error("the slug {slug} is taken; choose another")]
    #[non_exhaustive]
    SlugTaken {
        /// Which.
        slug: Slug,
        /// The operation that found it out, if one was begun. It is undone.
        operation: Option<OperationId>,
    },
    /// Another tenant has it.
    #[error("the domain {domain} is taken; choose another")]
    #[non_exhaustive]
    DomainTaken {
        /// Which.
        domain: Domain,
        /// The operation that found it out, if one was begun. It is undone.
        operation: Option<OperationId>,
    },
    /// One idempotency key, two requests.
    #[error("the key belongs to another request, operation {operation}; use a key of its own")]
    #[non_exhaustive]
    KeyReused {
        /// The other one.
        operation: OperationId,
    },
    /// The call named a server that is not set up.
    #[error("no server is called {server}; set it up first")]
    #[non_exhaustive]
    UnknownServer {
        /// Which.
        server: ServerName,
    },
    /// No server takes the tenant.
    #[error("no server has room: {servers} known, {full} full, {draining} draining; set one up or raise a capacity")]
    #[non_exhaustive]
    NoRoom {
        /// Servers in all.
        servers: usize,
        /// Of these, full.
        full: usize,
        /// Of these, draining or not ready.
        draining: usize,
    },
    /// It began and failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The landlord.
    #[error("the landlord did not answer")]
    Landlord(#[from] StoreError),
    /// The facade is closing.
    #[error("closed: no operation is begun any more")]
    Closed,
}
impl ProvisionError {
    /// The operation to name in a ticket; `None` when nothing was begun.
    pub fn operation_id(&self) -> Option<OperationId> {
        match self {
            Self::Failed(f) => Some(f.operation),
            Self::KeyReused { operation } => Some(*operation),
            Self::SlugTaken { operation, .. } | Self::DomainTaken { operation, .. } => *operation,
            _ => None,
        }
    }
    /// `Some`: the same call may succeed, not before this. `None`: change something first.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Failed(f) => f.retry_after,
            Self::Landlord(StoreError::Unavailable(_) | StoreError::LostWrites) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}
