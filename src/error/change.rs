//! The error of the operations on an existing tenant: suspend, activate, archive, restore, purge, rotate, migrate.
//!
//! The facade returns it to the application. Only `Failed` and `Landlord` can occur after an operation has begun.
use super::begin::{busy_retry, busy_text};
use super::{BoxError, Failure, StoreError};
use crate::directory::{DatabaseKind, Driver};
use crate::operation::{OperationId, OperationStatus};
use crate::sqlstate;
use crate::tenant::TenantStatus;
use std::time::Duration;

/// The reason why a call for an existing tenant failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// No tenant has this id, slug or domain.
    #[error("no tenant has this id, slug or domain")]
    Unknown,
    /// The tenant's status does not allow the operation.
    #[error("the tenant's status {found} does not allow this operation")]
    #[non_exhaustive]
    Status {
        /// The tenant's current status.
        found: TenantStatus,
    },
    /// Another operation of the same lane is open for this tenant.
    #[error("{}", busy_text(*.operation, *.status))]
    #[non_exhaustive]
    Busy {
        /// The open operation.
        operation: OperationId,
        /// Its status. A parked operation does not end by itself.
        status: OperationStatus,
    },
    /// The idempotency key was already used with a different request.
    #[error("operation {operation} used this idempotency key for a different request; use a new key")]
    #[non_exhaustive]
    KeyReused {
        /// The operation that used the key first.
        operation: OperationId,
    },
    /// A purge was refused because it destroys data. It needs `force()`, or an archived tenant whose retention has
    /// expired.
    #[error(
        "the tenant's data is retained{}; call force() to destroy it now",
        until.map(|t| format!(" until {t}")).unwrap_or_default()
    )]
    #[non_exhaustive]
    Kept {
        /// The end of the retention, if the tenant is archived with one.
        until: Option<time::OffsetDateTime>,
    },
    /// The retention of an archived tenant has expired, so its data may be destroyed at any moment.
    #[error("the retention of the tenant's data expired at {since}; the tenant can only be purged")]
    #[non_exhaustive]
    Expired {
        /// The end of the retention.
        since: time::OffsetDateTime,
    },
    /// The tenant's directory contains an entry for a database that tenantry did not create and therefore cannot close.
    /// Nothing was changed.
    #[error(
        "the tenant's {kind} entry for the {driver} database {database:?} at {address} was not created by tenantry, \
         which cannot close that database; close it yourself, set the entry to `Dropped` by \
         registry_writer().put_database(), then call again"
    )]
    #[non_exhaustive]
    UnmanagedEntry {
        /// The kind of the entry.
        kind: DatabaseKind,
        /// The protocol of the database.
        driver: Driver,
        /// Name of the database.
        database: String,
        /// Host and port of the entry.
        address: String,
    },
    /// The tenant's directory has no entry for a primary database. Nothing was changed.
    #[error("the tenant has no directory entry for a primary database; add one by registry_writer().put_database()")]
    NoEntry,
    /// The tenant's directory has an entry whose driver can be stored but is not implemented. Nothing was changed, and
    /// nothing connected to that database.
    #[error(
        "the tenant's database {database:?} at {address} uses the driver {driver}, which this version does not \
         implement; manage that database yourself, or set the entry to `Dropped` by registry_writer().put_database()"
    )]
    #[non_exhaustive]
    NotBuilt {
        /// Driver in the entry.
        driver: Driver,
        /// Name of the database.
        database: String,
        /// Host and port of the entry.
        address: String,
    },
    /// The tenant's primary entry names a database or a login that tenantry did not create, or its placement on a
    /// server was removed. So tenantry has no rights there with which it could migrate the database or replace the
    /// login. Nothing was changed.
    #[error(
        "tenantry did not create the database {database:?} at {address} and its login, or the tenant's placement was \
         removed; migrate that database and change its password yourself"
    )]
    #[non_exhaustive]
    NotProvisioned {
        /// Name of the database.
        database: String,
        /// Host and port of the entry.
        address: String,
    },
    /// The tenant's database has run a migration that this program does not have: a newer program has migrated it. The
    /// database was left as it is.
    #[error(
        "the tenant's database has run migration {version}, which this program does not have, so it was left as it is; \
         migrate it from the program that has this migration"
    )]
    #[non_exhaustive]
    Ahead {
        /// The oldest version in the database that this program does not have.
        version: i64,
    },
    /// The builder was given no tenant migrations.
    #[error("the builder has no tenant migrations; set them with tenant_migrations()")]
    NoMigrations,
    /// The table of applied migrations in the tenant's database cannot be read.
    #[error("the applied migrations of the tenant's database cannot be read")]
    Unreadable(#[source] sqlx::Error),
    /// No admin of the tenant has this address.
    #[error("no admin of the tenant has the address {0}")]
    NoAdmin(crate::names::Email),
    /// The tenant's database could not be asked whether the address is an admin's.
    #[error("the admin's address cannot be read from the tenant's database")]
    #[non_exhaustive]
    AdminUnreadable {
        /// How long to wait before the same call may succeed; `None` if something must be changed first.
        retry_after: Option<Duration>,
        /// The reason.
        source: BoxError,
    },
    /// No server with this name is registered.
    #[error("no server {server:?} is registered; see servers().list()")]
    #[non_exhaustive]
    UnknownServer {
        /// The name that the caller gave.
        server: String,
    },
    /// The lifetime of a temporary login is out of range. Nothing was changed.
    #[error(
        "a temporary login lives for 1 second to 24 hours, not for {lifetime:?}; call lifetime() with another value"
    )]
    #[non_exhaustive]
    Lifetime {
        /// The lifetime that the caller gave.
        lifetime: Duration,
    },
    /// The password of a temporary login was given to another call only: it is not stored. The login expires by itself.
    #[error(
        "operation {operation} gave the password of its temporary login to another call, and it is not stored; call \
         temporary_login() again with another key, or without one"
    )]
    #[non_exhaustive]
    PasswordNotStored {
        /// The operation that created the login.
        operation: OperationId,
    },
    /// The operation has created no temporary login.
    #[error("operation {operation} has created no temporary login; pass the id that temporary_login() has returned")]
    #[non_exhaustive]
    NoTemporaryLogin {
        /// The operation that the caller gave.
        operation: OperationId,
    },
    /// A temporary login could not be dropped now. Every node that runs tenantry tries again until it is dropped.
    #[error("the temporary login {login} could not be dropped; it is tried again every few seconds")]
    #[non_exhaustive]
    LoginNotDropped {
        /// Name of the login.
        login: String,
        /// Why it still exists.
        source: BoxError,
    },
    /// A value that the caller gave is not valid.
    #[error("the {field} is not valid")]
    #[non_exhaustive]
    Invalid {
        /// The field that is not valid.
        field: &'static str,
        /// The rule that it breaks.
        source: crate::names::InvalidName,
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
impl ChangeError {
    /// The operation to name in a support ticket; `None` if no operation was begun.
    pub fn operation_id(&self) -> Option<OperationId> {
        match self {
            Self::Failed(f) => Some(f.operation),
            Self::Busy { operation, .. } | Self::KeyReused { operation } => Some(*operation),
            Self::PasswordNotStored { operation } | Self::NoTemporaryLogin { operation } => Some(*operation),
            _ => None,
        }
    }
    /// How long to wait before the same call may succeed. `None` if it cannot succeed until something is changed.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Failed(f) => f.retry_after,
            Self::Busy { status, .. } => busy_retry(*status),
            Self::Landlord(error) => error.retry_after(),
            // A provisioning ends by itself, in an active tenant or in none.
            Self::Status { found: TenantStatus::Provisioning } => Some(Duration::from_secs(1)),
            Self::AdminUnreadable { retry_after, .. } => *retry_after,
            Self::LoginNotDropped { .. } => Some(Duration::from_secs(1)),
            Self::Unreadable(error) if sqlstate::is_transient(error) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}
