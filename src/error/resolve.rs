use super::{StoreError, VaultError};
use crate::directory::Driver;
use crate::names::{InvalidName, ServerName};
use crate::tenant::Tenant;
use std::time::Duration;

/// Why a tenant has no connection. `Clone`: one cold resolve answers many waiters.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// Cannot be anybody's name.
    #[error("not a tenant's name")]
    Invalid(#[from] InvalidName),
    /// Nobody has this id, slug or domain.
    #[error("no such tenant")]
    Unknown,
    /// Not there yet.
    #[error("{} is being set up", .0.slug())]
    Provisioning(Tenant),
    /// Refused for now.
    #[error("{} is suspended", .0.slug())]
    Suspended(Tenant),
    /// Refused.
    #[error("{} is archived", .0.slug())]
    Archived(Tenant),
    /// Active, but nothing says where its data lives.
    #[error("{} has no directory entry for a primary database; run the doctor", .0.slug())]
    NoEntry(Tenant),
    /// Its entry names a server that is not registered, or the resolver was given no registry of servers.
    #[error("{} lives on the server {server}, which is not registered here; see servers().list()", .tenant.slug())]
    #[non_exhaustive]
    UnknownServer {
        /// Whose entry.
        tenant: Tenant,
        /// The name in it.
        server: ServerName,
    },
    /// Not at the migration that this program needs.
    #[error("{} is not at the newest migration", .0.slug())]
    Behind(Tenant),
    /// The entry can be stored and not used yet.
    #[error("{} lives on {driver}, which this version stores but does not connect to", .tenant.slug())]
    #[non_exhaustive]
    NotBuilt {
        /// Whose entry.
        tenant: Tenant,
        /// What it asks for.
        driver: Driver,
    },
    /// The credential.
    #[error("the credential does not open")]
    Credential(#[from] VaultError),
    /// The landlord.
    #[error("the landlord did not answer")]
    Landlord(#[from] StoreError),
    /// The resolver is closing.
    #[error("closed: no tenant is resolved any more")]
    Closed,
}
impl ResolveError {
    /// `Some`: the same call may succeed, not before this.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Landlord(_) | Self::Provisioning(_) | Self::Behind(_) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}
