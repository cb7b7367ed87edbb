//! The error of a provisioning.
//!
//! The facade returns it to the application. Except for `Failed` and `Landlord`, the call created no tenant.
use super::{Failure, StoreError};
use crate::names::{Domain, InvalidName, ServerName, Slug};
use crate::operation::OperationId;
use std::time::Duration;

/// The reason why a tenant was not provisioned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// A field is not valid. No operation was begun.
    #[error("the {field} {value:?} is not valid")]
    #[non_exhaustive]
    Invalid {
        /// The field that is not valid.
        field: &'static str,
        /// The value that the caller gave, shortened to 80 characters.
        value: String,
        /// The rule that it breaks.
        source: InvalidName,
    },
    /// The input of a custom step cannot be serialized to JSON. No operation was begun.
    #[error("the input cannot be stored as JSON")]
    Input(#[source] serde_json::Error),
    /// Another tenant has this slug.
    #[error("the slug {slug} is taken; choose another")]
    #[non_exhaustive]
    SlugTaken {
        /// The slug that the caller gave.
        slug: Slug,
        /// The operation that detected the conflict, if one was begun. It is undone.
        operation: Option<OperationId>,
    },
    /// Another tenant has this domain.
    #[error("the domain {domain} is taken; choose another")]
    #[non_exhaustive]
    DomainTaken {
        /// The domain that the caller gave.
        domain: Domain,
        /// The operation that detected the conflict, if one was begun. It is undone.
        operation: Option<OperationId>,
    },
    /// The idempotency key was already used with a different request.
    #[error("operation {operation} used this idempotency key for a different request; use a new key")]
    #[non_exhaustive]
    KeyReused {
        /// The operation that used the key first.
        operation: OperationId,
    },
    /// The caller named a server that is not registered.
    #[error("no server {server} is registered; set it up first")]
    #[non_exhaustive]
    UnknownServer {
        /// The name that the caller gave.
        server: ServerName,
    },
    /// No server can take another tenant.
    #[error(
        "none of the {servers} servers can take another tenant: {full} are full, {draining} are draining or not ready; \
         set up a server or raise a capacity"
    )]
    #[non_exhaustive]
    NoRoom {
        /// Number of registered servers.
        servers: usize,
        /// Number of servers that have reached their capacity.
        full: usize,
        /// Number of servers that are draining or not ready.
        draining: usize,
    },
    /// Servers had room, and the application's placement function chose none of them.
    #[error(
        "the placement function of the application {} (servers that can take another tenant: {candidates}); change it, \
         or the labels of the servers",
        chosen.as_ref().map_or_else(|| "chose no server".into(), |s| format!("chose {s}, which it was not offered"))
    )]
    #[non_exhaustive]
    PlacementRefused {
        /// Number of servers that the function could choose from.
        candidates: usize,
        /// The server that it chose although it is not registered, full, draining or not ready; `None` if it chose none.
        chosen: Option<ServerName>,
    },
    /// The operation began and failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// A store of the landlord failed. The text says how: it did not answer, refused a value, has an unreadable row, or
    /// needs a key of a key provider that failed.
    #[error(transparent)]
    Landlord(#[from] StoreError),
    /// `close()` was called, so no new operation may begin.
    #[error("tenantry is closed; it begins no new operation")]
    Closed,
}
impl ProvisionError {
    /// The operation to name in a support ticket; `None` if no operation was begun.
    pub fn operation_id(&self) -> Option<OperationId> {
        match self {
            Self::Failed(f) => Some(f.operation),
            Self::KeyReused { operation } => Some(*operation),
            Self::SlugTaken { operation, .. } | Self::DomainTaken { operation, .. } => *operation,
            _ => None,
        }
    }
    /// How long to wait before the same call may succeed. `None` if it cannot succeed until something is changed.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Failed(f) => f.retry_after,
            Self::Landlord(error) => error.retry_after(),
            _ => None,
        }
    }
}
