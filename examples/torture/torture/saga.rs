//! The operations into which faults are injected. To add one, add it to the enum and to [`Saga::ALL`].
//!
//! A child runs an operation with [`Saga::run`]. The driver prepares the tenant with [`Saga::prepare`], and afterwards
//! brings all open operations to their end with [`settle`].
use super::AnyError;
use super::links::follow;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tenantry::Tenantry;
use tenantry::operation::OperationStatus;

/// An operation: run forward, undone, or taken over by recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Saga {
    Provision,
    /// A provisioning whose last migration fails, so that everything is undone.
    ProvisionUndo,
    /// A worker died in the middle of a provisioning; the child recovers the operation.
    ProvisionRecovery,
    /// A worker died while it undid a provisioning; the child recovers the operation.
    UndoRecovery,
    Suspend,
    Activate,
    Archive,
    Restore,
    Purge,
    /// A worker died after a purge had dropped the database; the child recovers the operation.
    PurgeRecovery,
    Migrate,
    /// A worker died while migrations ran; the child recovers the operation.
    MigrateRecovery,
    Rotate,
    /// A worker died after the directory entry had the new login; the child recovers the operation.
    RotateRecovery,
    /// Rotation of the provisioner's own two logins.
    RotateServer,
    /// A worker died in the rotation of the provisioner's logins; the child recovers the operation.
    RotateServerRecovery,
    /// Following the credentials link, which gives the tenant a new login.
    CredentialsLink,
    /// A worker died before it had used the credentials link; the child recovers the operation.
    CredentialsLinkRecovery,
    /// Following the password link, which sets the password of the tenant's admin.
    PasswordLink,
    /// A worker died before it had set the password; the child recovers the operation.
    PasswordLinkRecovery,
    /// The child rewraps all secrets with its primary key, which differs from the one that sealed them.
    Rekey,
    /// A worker died while it rewrapped secrets; the child recovers the operation.
    RekeyRecovery,
    /// Set-up of a server. Recovery cannot continue it, because it needs the server admin's password, which is not
    /// stored. A repeated call continues it.
    ServerSetup,
}

impl Saga {
    pub(crate) const ALL: [Self; 23] = [
        Self::Provision,
        Self::ProvisionUndo,
        Self::ProvisionRecovery,
        Self::UndoRecovery,
        Self::Suspend,
        Self::Activate,
        Self::Archive,
        Self::Restore,
        Self::Purge,
        Self::PurgeRecovery,
        Self::Migrate,
        Self::MigrateRecovery,
        Self::Rotate,
        Self::RotateRecovery,
        Self::RotateServer,
        Self::RotateServerRecovery,
        Self::CredentialsLink,
        Self::CredentialsLinkRecovery,
        Self::PasswordLink,
        Self::PasswordLinkRecovery,
        Self::Rekey,
        Self::RekeyRecovery,
        Self::ServerSetup,
    ];
    pub(crate) fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    }
    /// For a recovery: the saga to recover, and the step at which its first worker is killed before the child starts.
    pub(crate) fn prelude(self) -> Option<(Self, &'static str)> {
        match self {
            Self::ProvisionRecovery => Some((Self::Provision, "migrations.run")),
            Self::UndoRecovery => Some((Self::ProvisionUndo, "undo login.create")),
            Self::PurgeRecovery => Some((Self::Purge, "secrets.forget")),
            Self::MigrateRecovery => Some((Self::Migrate, "migrations.run")),
            Self::RotateServerRecovery => Some((Self::RotateServer, "other.password")),
            Self::CredentialsLinkRecovery => Some((Self::CredentialsLink, "link.follow")),
            Self::PasswordLinkRecovery => Some((Self::PasswordLink, "password.set")),
            Self::RekeyRecovery => Some((Self::Rekey, "secrets.rewrap")),
            Self::RotateRecovery => Some((Self::Rotate, "login.retire")),
            _ => None,
        }
    }
    pub(crate) fn is_link(self) -> bool {
        matches!(self.base(), Self::CredentialsLink | Self::PasswordLink)
    }
    /// The saga whose steps run: for a recovery the recovered saga, else `self`.
    pub(crate) fn base(self) -> Self {
        self.prelude().map_or(self, |(base, _)| base)
    }
    pub(crate) fn is_provision(self) -> bool {
        matches!(self.base(), Self::Provision | Self::ProvisionUndo)
    }
    /// Whether the child has a migration that fails.
    pub(crate) fn is_broken(self) -> bool {
        self.base() == Self::ProvisionUndo
    }
    /// The stored kind of its operation.
    pub(crate) fn kind(self) -> &'static str {
        match self.base() {
            Self::Suspend => "suspend",
            Self::Activate => "activate",
            Self::Archive => "archive",
            Self::Restore => "restore",
            Self::Purge => "purge",
            Self::Migrate => "migrate",
            Self::Rotate => "rotate",
            Self::RotateServer => "rotate_server",
            Self::Rekey => "rekey",
            Self::CredentialsLink => "setup_credentials",
            Self::PasswordLink => "setup_password",
            Self::ServerSetup => "set_up_server",
            _ => "provision",
        }
    }

    /// Creates the tenant and brings it into the status that the saga begins with.
    pub(crate) async fn prepare(self, tenantry: &Tenantry, slug: &str, server: &str) -> Result<(), AnyError> {
        if self.is_provision() || self == Self::ServerSetup {
            return Ok(());
        }
        tenantry.provision(slug).admin("ada@torture.example").server(server).await?;
        match self.base() {
            Self::Activate => drop(tenantry.suspend(slug).await?),
            Self::Restore => drop(tenantry.archive(slug).await?),
            Self::PasswordLink => follow(tenantry, slug, false).await?,
            Self::Rekey => drop(tenantry.rekey().await?),
            _ => {}
        }
        Ok(())
    }

    /// Calls the saga as an application does. A recovery runs until nothing is open.
    pub(crate) async fn run(self, tenantry: &Tenantry, slug: &str, server: &str) -> Result<(), AnyError> {
        if self.prelude().is_some() {
            return settle(tenantry, Duration::from_secs(30)).await;
        }
        match self {
            Self::Suspend => drop(tenantry.suspend(slug).key(slug).await?),
            Self::Activate => drop(tenantry.activate(slug).key(slug).await?),
            Self::Archive => drop(tenantry.archive(slug).key(slug).await?),
            Self::Restore => drop(tenantry.restore(slug).key(slug).await?),
            Self::Purge => drop(tenantry.purge(slug).key(slug).force().await?),
            Self::Migrate => drop(tenantry.migrate(slug).key(slug).await?),
            Self::Rotate => drop(tenantry.rotate(slug).key(slug).await?),
            Self::CredentialsLink => follow(tenantry, slug, false).await?,
            Self::PasswordLink => follow(tenantry, slug, true).await?,
            Self::Rekey => drop(tenantry.rekey().key(slug).await?),
            Self::RotateServer => drop(tenantry.rotate_server(server).key(slug).await?),
            _ => drop(provision(tenantry, slug, server).await?),
        }
        Ok(())
    }
}

/// Provisions the tenant with its slug as idempotency key. A repeated call joins the operation, or starts a new one if
/// it was undone.
pub(crate) async fn provision(
    tenantry: &Tenantry, slug: &str, server: &str,
) -> Result<tenantry::provision::Provisioned, tenantry::error::ProvisionError> {
    tenantry.provision(slug).admin("ada@torture.example").server(server).key(slug).await
}

/// Runs recovery until no operation is open and no login waits to be dropped, at most for `limit`. Resumes parked
/// operations, because the fault that parked them is over.
pub(crate) async fn settle(tenantry: &Tenantry, limit: Duration) -> Result<(), AnyError> {
    let until = tokio::time::Instant::now() + limit;
    loop {
        let obstacle = match recover_once(tenantry).await {
            Ok(true) => return Ok(()),
            Ok(false) => String::from("operations are open or logins wait to be dropped"),
            Err(error) => error.to_string(),
        };
        if tokio::time::Instant::now() > until {
            let open = tenantry.operations().open().await?;
            return Err(format!("recovery does not finish: {obstacle}; open operations: {open:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One pass of recovery. Returns whether nothing is left to do.
async fn recover_once(tenantry: &Tenantry) -> Result<bool, AnyError> {
    tenantry.operations().recover().await?;
    let open = tenantry.operations().open().await?;
    for parked in open.iter().filter(|o| o.status == OperationStatus::Parked) {
        tenantry.operations().resume(parked.id).await?;
    }
    // A rotation succeeds even if the old login cannot be dropped yet. This drops such logins.
    tenantry.retire_due().await?;
    Ok(open.is_empty() && tenantry.retiring(1).await?.is_empty())
}
