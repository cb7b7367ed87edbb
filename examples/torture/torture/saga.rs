//! What is tortured. A new saga joins by being in the list.
use super::Anything;
use super::links::follow;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tenantry::Tenantry;
use tenantry::operation::OperationStatus;

/// One saga, forward, backward, or taken over by recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Saga {
    Provision,
    /// Its last migration fails: everything is undone.
    ProvisionUndo,
    /// A worker died in the middle; the child recovers it.
    ProvisionRecovery,
    /// A worker died while it undid; the child recovers it.
    UndoRecovery,
    Suspend,
    Activate,
    Archive,
    Restore,
    Purge,
    /// A worker died after the database was gone; the child recovers it.
    PurgeRecovery,
    Migrate,
    /// A worker died while migrations ran; the child recovers it.
    MigrateRecovery,
    Rotate,
    /// A worker died when the directory named the new login; the child recovers it.
    RotateRecovery,
    /// The provisioner's own two logins.
    RotateServer,
    /// A worker died when all nodes were to use the other login; the child recovers it.
    RotateServerRecovery,
    /// The credentials link of the setup.
    CredentialsLink,
    /// A worker died when the login was new and the link not used; the child recovers it.
    CredentialsLinkRecovery,
    /// The password link of the setup.
    PasswordLink,
    /// A worker died when the password was to be set; the child recovers it.
    PasswordLinkRecovery,
    /// The vault goes over to a key that the child has as its primary.
    Rekey,
    /// A worker died while it wrapped anew; the child recovers it.
    RekeyRecovery,
    /// Of a server. Nobody but the same call goes on with it: it needs the admin's password, which is stored nowhere.
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
    /// The saga that is on its way when the child begins, and the step at which its first worker dies.
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
    /// What it is at heart.
    pub(crate) fn base(self) -> Self {
        self.prelude().map_or(self, |(base, _)| base)
    }
    pub(crate) fn is_provision(self) -> bool {
        matches!(self.base(), Self::Provision | Self::ProvisionUndo)
    }
    /// Whether the program that runs it has a migration that fails.
    pub(crate) fn is_broken(self) -> bool {
        self.base() == Self::ProvisionUndo
    }
    /// The stored name of its operation.
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

    /// The tenant as it must be before.
    pub(crate) async fn prepare(self, tenantry: &Tenantry, slug: &str, server: &str) -> Result<(), Anything> {
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

    /// The saga itself, as a host calls it.
    pub(crate) async fn run(self, tenantry: &Tenantry, slug: &str, server: &str) -> Result<(), Anything> {
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

/// With a key, so that a retry joins or begins again.
pub(crate) async fn provision(
    tenantry: &Tenantry, slug: &str, server: &str,
) -> Result<tenantry::provision::Provisioned, tenantry::error::ProvisionError> {
    tenantry.provision(slug).admin("ada@torture.example").server(server).key(slug).await
}

/// Recovery, until nothing is open any more. What waits for a person is resumed: what it waited for is over.
pub(crate) async fn settle(tenantry: &Tenantry, limit: Duration) -> Result<(), Anything> {
    let until = tokio::time::Instant::now() + limit;
    loop {
        let trouble = match pass(tenantry).await {
            Ok(true) => return Ok(()),
            Ok(false) => String::from("something is still open"),
            Err(error) => error.to_string(),
        };
        if tokio::time::Instant::now() > until {
            let open = tenantry.operations().open().await?;
            return Err(format!("recovery does not come to an end: {trouble}; {open:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn pass(tenantry: &Tenantry) -> Result<bool, Anything> {
    tenantry.operations().recover().await?;
    let open = tenantry.operations().open().await?;
    for parked in open.iter().filter(|o| o.status == OperationStatus::Parked) {
        tenantry.operations().resume(parked.id).await?;
    }
    // A login that could not be dropped fails no rotation; it goes when it can.
    tenantry.retire_due().await?;
    Ok(open.is_empty() && tenantry.retiring(1).await?.is_empty())
}
