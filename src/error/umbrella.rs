//! The errors of building and running the facade, and one error type that contains all others.
//!
//! An application that does not distinguish between the operations can convert every error into [`Error`] with `?`.
use super::{
    ChangeError, InheritedVariable, KeyError, OperationError, ProvisionError, RelocateError, ResolveError,
    ServerSetupError, StoreError, VaultError,
};
use crate::operation::OperationId;
use crate::secret::KeyId;
use std::time::Duration;

/// The reason why the landlord's schema `tenantry` cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The schema is not installed, or it is older than this crate. Holds the missing migrations or objects.
    #[error("the landlord lacks {}; call tenantry::schema::install(&landlord)", .0.join(", "))]
    Missing(Vec<String>),
    /// The landlord has migrations that this crate does not have, or whose text differs from this crate's.
    #[error("the landlord has {} which this version of tenantry does not know; deploy a newer one", .0.join(", "))]
    Newer(Vec<String>),
    /// Objects that a migration created were dropped later. `install` does not create them again, because that would
    /// hide the loss of their rows.
    #[error("the landlord has lost {}; restore it from a backup", .0.join(", "))]
    Damaged(Vec<String>),
    /// The role of the landlord's pool lacks these rights.
    #[error("the landlord's role lacks {}; grant it, or use a role that has it", .0.join(", "))]
    Rights(Vec<String>),
    /// A store of the landlord failed. The text says how: it did not answer, refused a value, has an unreadable row, or
    /// needs a key of a key provider that failed.
    #[error(transparent)]
    Landlord(#[from] StoreError),
}

/// The reason why the facade could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Two steps have the same name. The journal identifies a step by its name, so names must be unique.
    #[error("two steps have the name {0}; rename one of them")]
    DuplicateStep(&'static str),
    /// The builder has no key provider. Secrets are never stored unencrypted, so one is required.
    #[error("the builder has no key provider; call keys()")]
    NoKeys,
    /// A setting is out of range or lacks another one that it needs. Holds the name of the setting and the reason.
    #[error("the setting {0} {1}")]
    Setting(&'static str, &'static str),
    /// A setting would have no effect, because of another one.
    #[error("the setting {setting} has no effect together with {with}: {reason}; remove one of the two")]
    #[non_exhaustive]
    Contradiction {
        /// The setting without an effect.
        setting: &'static str,
        /// The setting that takes its effect.
        with: &'static str,
        /// Why it has no effect.
        reason: &'static str,
    },
    /// An environment variable would change every connection to a tenant's database.
    #[error(transparent)]
    Environment(#[from] InheritedVariable),
    /// The landlord's schema cannot be used.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Stored secrets are encrypted with a key that the provider does not have.
    #[error("stored secrets need the key {0}, which the key provider does not have; add it")]
    KeyMissing(KeyId),
    /// The provider's key of this name has other bytes than the key that encrypted the stored secrets.
    #[error("the key {0} differs from the key of that name that encrypted the stored secrets; provide it")]
    KeyWrong(KeyId),
    /// The vault could not check its keys.
    #[error("the vault failed")]
    Vault(#[from] VaultError),
    /// A store of the landlord failed. The text says how: it did not answer, refused a value, has an unreadable row, or
    /// needs a key of a key provider that failed.
    #[error(transparent)]
    Landlord(#[from] StoreError),
}

/// The reason why `run` returned before `close()` was called.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// `run` was called twice. One call per process is enough.
    #[error("run() is already running in this process")]
    AlreadyRunning,
    /// A store of the landlord failed. The text says how: it did not answer, refused a value, has an unreadable row, or
    /// needs a key of a key provider that failed.
    #[error(transparent)]
    Landlord(#[from] StoreError),
}

/// Any error of this crate, for applications that do not distinguish between the operations.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The facade could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The landlord's schema cannot be used.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A tenant was not provisioned.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// A call for an existing tenant failed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// An open operation was not continued or ended.
    #[error(transparent)]
    Operation(#[from] OperationError),
    /// A tenant could not be resolved to a pool.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A server was not set up, drained or removed.
    #[error(transparent)]
    ServerSetup(#[from] ServerSetupError),
    /// A server's address was not changed.
    #[error(transparent)]
    Relocate(#[from] RelocateError),
    /// A store of the landlord failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key provider failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The background future `run` failed.
    #[error(transparent)]
    Execution(#[from] RunError),
}
impl Error {
    /// The operation to name in a support ticket; `None` if no operation was begun.
    pub fn operation_id(&self) -> Option<OperationId> {
        match self {
            Self::Provision(e) => e.operation_id(),
            Self::Change(e) => e.operation_id(),
            Self::Operation(e) => e.operation_id(),
            Self::ServerSetup(ServerSetupError::Failed(f)) | Self::Relocate(RelocateError::Failed(f)) => {
                Some(f.operation)
            }
            _ => None,
        }
    }
    /// How long to wait before the same call may succeed. `None` if it cannot succeed until something is changed.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Provision(e) => e.retry_after(),
            Self::Change(e) => e.retry_after(),
            Self::Operation(e) => e.retry_after(),
            Self::Resolve(e) => e.retry_after(),
            Self::ServerSetup(e) => e.retry_after(),
            Self::Relocate(e) => e.retry_after(),
            Self::Store(e)
            | Self::Schema(SchemaError::Landlord(e))
            | Self::Build(BuildError::Landlord(e) | BuildError::Schema(SchemaError::Landlord(e)))
            | Self::Execution(RunError::Landlord(e)) => e.retry_after(),
            Self::Build(BuildError::Vault(e)) if e.is_transient() => Some(Duration::from_secs(1)),
            Self::Key(KeyError::Unavailable(_)) => Some(Duration::from_secs(1)),
            Self::Build(_) | Self::Schema(_) | Self::Key(_) | Self::Execution(_) => None,
        }
    }
}
