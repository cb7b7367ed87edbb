use super::{Failure, StoreError};
use crate::directory::{DatabaseKind, Driver};
use crate::operation::OperationId;
use crate::tenant::TenantStatus;
use std::time::Duration;

/// Why a verb on a tenant that exists did not do its work: suspend, activate, archive, restore, purge, rotate, migrate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// Nobody has this id, slug or domain.
    #[error("no such tenant")]
    Unknown,
    /// The status does not allow it.
    #[error("a tenant that is {found} cannot do this")]
    #[non_exhaustive]
    Status {
        /// Where it stands.
        found: TenantStatus,
    },
    /// Another operation of the same lane is open.
    #[error("operation {operation} is under way; wait for it")]
    #[non_exhaustive]
    Busy {
        /// Which.
        operation: OperationId,
    },
    /// One idempotency key, two requests.
    #[error("the key belongs to another request, operation {operation}; use a key of its own")]
    #[non_exhaustive]
    KeyReused {
        /// The other one.
        operation: OperationId,
    },
    /// A purge destroys data: it must be forced, or the deadline of the archive must be over.
    #[error("the data is kept{}; say force() to destroy it now", until.map(|t| format!(" until {t}")).unwrap_or_default())]
    #[non_exhaustive]
    Kept {
        /// The deadline, if there is one.
        until: Option<time::OffsetDateTime>,
    },
    /// The deadline of an archived tenant is over: its data may be destroyed at any moment.
    #[error("its data was kept until {since}; it can only be purged now")]
    #[non_exhaustive]
    Expired {
        /// The deadline.
        since: time::OffsetDateTime,
    },
    /// The tenant's directory names a database that no operation can close, so it could not be shut out there. Nothing was
    /// changed.
    #[error(
        "the tenant's {kind} entry for the {driver} database {database:?} at {address} was not made by tenantry, which \
         cannot close it; close it yourself and set the entry to `Dropped` by registry_writer().put_database(), then call \
         again"
    )]
    #[non_exhaustive]
    UnmanagedEntry {
        /// What the entry is for.
        kind: DatabaseKind,
        /// Its protocol.
        driver: Driver,
        /// The database.
        database: String,
        /// Host and port.
        address: String,
    },
    /// There is nothing to migrate with.
    #[error("no tenant migrations were given to the builder; name them by tenant_migrations()")]
    NoMigrations,
    /// The tenant's ledger of migrations cannot be read.
    #[error("the tenant's database does not answer")]
    Unreadable(#[source] sqlx::Error),
    /// No server has this name.
    #[error("no server {server:?} is registered; see servers().list()")]
    #[non_exhaustive]
    UnknownServer {
        /// The name.
        server: String,
    },
    /// What the caller gave breaks a rule.
    #[error("the {field} is not usable")]
    #[non_exhaustive]
    Invalid {
        /// Which part of it.
        field: &'static str,
        /// The rule.
        source: crate::names::InvalidName,
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
impl ChangeError {
    /// The operation to name in a ticket; `None` when nothing was begun.
    pub fn operation_id(&self) -> Option<OperationId> {
        match self {
            Self::Failed(f) => Some(f.operation),
            Self::Busy { operation } | Self::KeyReused { operation } => Some(*operation),
            _ => None,
        }
    }
    /// `Some`: the same call may succeed, not before this. `None`: change something first.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Failed(f) => f.retry_after,
            Self::Busy { .. } | Self::Landlord(StoreError::Unavailable(_) | StoreError::LostWrites) => {
                Some(Duration::from_secs(1))
            }
            _ => None,
        }
    }
}
