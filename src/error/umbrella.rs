use super::{
    ChangeError, KeyError, ProvisionError, RelocateError, ResolveError, ServerSetupError, StoreError, VaultError,
};
use crate::operation::OperationId;
use crate::secret::KeyId;
use std::time::Duration;

/// What is wrong with the landlord's schema `tenantry`.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// Not installed, or older than this crate.
    #[error("the landlord lacks {}; call tenantry::schema::install(&landlord)", .0.join(", "))]
    Missing(Vec<String>),
    /// Newer than this crate, or of another origin: a migration's text is not the one this crate has.
    #[error("the landlord has {} which this version of tenantry does not know; deploy a newer one", .0.join(", "))]
    Newer(Vec<String>),
    /// Something that a migration made was dropped since. `install` does not make it again: what it held would be
    /// missed in silence.
    #[error("the landlord has lost {}; bring it back from a backup", .0.join(", "))]
    Damaged(Vec<String>),
    /// What the landlord's role would need.
    #[error("the landlord's role lacks {}; grant it, or use a role that has it", .0.join(", "))]
    Rights(Vec<String>),
    /// The landlord.
    #[error("the landlord did not answer")]
    Landlord(#[from] StoreError),
}

/// Why a facade was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A step's name is stored, so it must be one step's.
    #[error("two steps are called {0}; rename one")]
    StepTwice(&'static str),
    /// Without keys no secret can be sealed, and none is kept in plain.
    #[error("no key provider; call keys()")]
    NoKeys,
    /// A setting contradicts another or is out of range.
    #[error("the setting {0} {1}")]
    Setting(&'static str, &'static str),
    /// The schema.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Secrets are sealed with a key that the provider does not hold.
    #[error("the key {0} is needed by stored secrets and not provided; add it to the key ring")]
    KeyMissing(KeyId),
    /// A key of the right name and the wrong bytes.
    #[error("the key {0} has other bytes than the key that sealed the stored secrets; give the right ones")]
    KeyWrong(KeyId),
    /// The vault.
    #[error("the vault failed")]
    Vault(#[from] VaultError),
    /// The landlord.
    #[error("the landlord did not answer")]
    Landlord(#[from] StoreError),
}

/// Why `run` ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// One is enough.
    #[error("run() is already running in this process")]
    AlreadyRunning,
    /// The landlord.
    #[error("the landlord did not answer")]
    Landlord(#[from] StoreError),
}

/// For hosts that do not care which verb failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Building the facade.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The landlord's schema.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Provisioning.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// A verb on an existing tenant.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Resolving.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Servers.
    #[error(transparent)]
    ServerSetup(#[from] ServerSetupError),
    /// The address of a server.
    #[error(transparent)]
    Relocate(#[from] RelocateError),
    /// A store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The background future.
    #[error(transparent)]
    Execution(#[from] RunError),
}
impl Error {
    /// The operation to name in a ticket.
    pub fn operation_id(&self) -> Option<OperationId> {
        match self {
            Self::Provision(e) => e.operation_id(),
            Self::Change(e) => e.operation_id(),
            Self::ServerSetup(ServerSetupError::Failed(f)) | Self::Relocate(RelocateError::Failed(f)) => {
                Some(f.operation)
            }
            _ => None,
        }
    }
    /// `Some`: the same call may succeed, not before this.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Provision(e) => e.retry_after(),
            Self::Change(e) => e.retry_after(),
            Self::Resolve(e) => e.retry_after(),
            _ => None,
        }
    }
}
