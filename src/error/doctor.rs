//! The error of an examination and of applying a plan.
use super::StoreError;
use crate::names::{InvalidName, ServerName};

/// The reason why the doctor could not examine or repair anything. A single subject that cannot be examined is a
/// finding, and a single repair that fails is an outcome.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoctorError {
    /// No tenant has this id, slug or domain.
    #[error("no tenant has this id, slug or domain")]
    UnknownTenant,
    /// No server has this name.
    #[error("no server {server} is registered; see servers().list()")]
    #[non_exhaustive]
    UnknownServer {
        /// The name that the caller gave.
        server: ServerName,
    },
    /// The text is no plan.
    #[error("the plan cannot be read; make a new one")]
    Plan(#[source] serde_json::Error),
    /// Another version of the crate has written the plan.
    #[error("the plan has format {found}, which this version does not know; make a new one")]
    #[non_exhaustive]
    Format {
        /// The format.
        found: u32,
    },
    /// The plan was made for another installation.
    #[error("the plan was made for another installation; make a new one here")]
    OtherInstallation,
    /// The reason for the repairs cannot be stored.
    #[error("the reason is not valid")]
    Reason(#[source] InvalidName),
    /// A store of the landlord failed.
    #[error(transparent)]
    Landlord(#[from] StoreError),
    /// `close()` was called, so no repair may begin.
    #[error("tenantry is closed; it begins no repair")]
    Closed,
}
