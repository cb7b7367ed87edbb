//! The error of resolving a tenant to a connection pool.
//!
//! The resolver returns it to the application, and the web layer maps it to an HTTP status. A shared load returns one
//! clone to each waiting caller.
use super::{StoreError, UntrustedAddress, VaultError};
use crate::directory::Driver;
use crate::names::{InvalidName, ServerName};
use crate::tenant::Tenant;
use std::time::Duration;

/// The reason why a tenant could not be resolved to a pool.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The given text is not a valid slug or domain, so no tenant can have it.
    #[error("the text is not a valid tenant slug or domain")]
    Invalid(#[from] InvalidName),
    /// No tenant has this id, slug or domain.
    #[error("no tenant has this id, slug or domain")]
    Unknown,
    /// The tenant is still being provisioned.
    #[error("tenant {} is still being provisioned", .0.slug())]
    Provisioning(Tenant),
    /// The tenant is suspended.
    #[error("tenant {} is suspended", .0.slug())]
    Suspended(Tenant),
    /// The tenant is archived.
    #[error("tenant {} is archived", .0.slug())]
    Archived(Tenant),
    /// The tenant is active, but its directory has no entry for a primary database.
    #[error("tenant {} has no directory entry for a primary database; add one by registry_writer().put_database()", .0.slug())]
    NoEntry(Tenant),
    /// The tenant's directory entry names a server that is not registered, or the resolver has no server registry.
    #[error(
        "tenant {} is on the server {server}, which is not registered; see servers().list()",
        .tenant.slug()
    )]
    #[non_exhaustive]
    UnknownServer {
        /// Tenant that owns the entry.
        tenant: Tenant,
        /// Server name in the entry.
        server: ServerName,
    },
    /// The tenant's database lacks a migration that this program needs.
    #[error("the database of tenant {} lacks migrations that this program needs; migrate it", .0.slug())]
    Behind(Tenant),
    /// A migration of this program has run in the tenant's database with another text, or was begun outside a
    /// transaction and not finished. Migrating again does not help: a person has to check the database.
    #[error(
        "in the database of tenant {} migration {version} is unfinished or has run with another text than this program \
         has; see migration_status()",
        .tenant.slug()
    )]
    #[non_exhaustive]
    UnusableMigration {
        /// Tenant whose database it is.
        tenant: Tenant,
        /// Version of the migration.
        version: i64,
    },
    /// The tenant's directory entry uses a driver that can be stored but is not implemented.
    #[error(
        "the database of tenant {} uses the driver {driver}, which this version does not implement",
        .tenant.slug()
    )]
    #[non_exhaustive]
    NotBuilt {
        /// Tenant that owns the entry.
        tenant: Tenant,
        /// Driver in the entry.
        driver: Driver,
    },
    /// The vault could not return the tenant's database password.
    #[error("the tenant's database credential cannot be read from the vault")]
    Credential(#[from] VaultError),
    /// The landlord has an address for the tenant's database to which this process sends no password.
    #[error("the address of the tenant's database in the landlord is not trusted")]
    Untrusted(#[from] UntrustedAddress),
    /// A store of the landlord failed. The text says how: it did not answer, or has an unreadable row.
    #[error(transparent)]
    Landlord(StoreError),
    /// `close()` was called on the resolver.
    #[error("the resolver is closed")]
    Closed,
}
impl From<StoreError> for ResolveError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Untrusted(address) => Self::Untrusted(address),
            error => Self::Landlord(error),
        }
    }
}
impl ResolveError {
    /// How long to wait before the same call may succeed. `None` if it cannot succeed until something is changed.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Provisioning(_) | Self::Behind(_) => Some(Duration::from_secs(1)),
            Self::Landlord(error) => error.retry_after(),
            Self::Credential(error) if error.is_transient() => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}
