use super::steps::{SEAL, Sealed};
use super::{AppLogin, Request};
use crate::database::{DatabaseStatus, DatabaseUser, Generation, TenantDatabase, UserStatus};
use crate::error::{ChangeError, StepError};
use crate::ident::RoleName;
use crate::pg::{ddl, scram, scram::Verifier};
use crate::registry::TenantRegistryExt;
use crate::saga::Run;
use crate::secret::CredentialId;
use crate::tenant::{TenantId, TenantStatus};
use crate::worker::{Place, Site, Workshop};
use secrecy::SecretString;
use std::time::Duration;

/// What one worker of a rotation holds.
pub(crate) struct World {
    pub(crate) shop: Workshop,
    pub(super) login: AppLogin,
    pub(crate) tenant: TenantId,
    pub(super) site: Site,
    /// The new login's password, once this worker has sealed or opened it, and what the server gets of it.
    pub(super) kept: Option<(Verifier, SecretString)>,
}

impl World {
    pub(crate) fn new(shop: Workshop, login: AppLogin, run: &Run) -> Result<Self, StepError> {
        let site = Site::new(shop.clone(), run)?;
        Ok(Self { shop, login, tenant: site.tenant(), site, kept: None })
    }

    /// It was active before the lane was taken, and a fence may have ended in between.
    pub(super) async fn only_active(&self) -> Result<(), StepError> {
        match self.shop.registry.find(self.tenant.into()).await? {
            Some(tenant) if tenant.status() == TenantStatus::Active => Ok(()),
            Some(tenant) => Err(StepError::fail(ChangeError::Status { found: tenant.status() })),
            None => Err(StepError::fail(ChangeError::Unknown)),
        }
    }

    /// The entry that is in use. One on a shared login, or on a server that is not ours, has nothing to rotate.
    pub(super) async fn entry(&mut self) -> Result<TenantDatabase, StepError> {
        let none = || StepError::fail("the tenant has no directory entry");
        let entry = self.shop.registry.primary(self.tenant).await?.ok_or_else(none)?;
        let Place { server, names } = self.site.place().await?;
        let ours = entry.server.as_ref() == Some(&server.name) && entry.database == names.database;
        match entry.status {
            DatabaseStatus::Active if ours => Ok(entry),
            _ => Err(StepError::fail("the tenant's login was not made by tenantry; adopt its database first")),
        }
    }

    /// The logins that this rotation has made or is about to make. The lane is its own, so nobody else's are pending.
    pub(super) async fn pending(&self) -> Result<Vec<DatabaseUser>, StepError> {
        let users = self.shop.registry.users(self.tenant).await?;
        Ok(users.into_iter().filter(|u| u.status == UserStatus::Pending).collect())
    }

    /// The new login: the one that is pending, or else the next one.
    pub(super) async fn next(&mut self, entry: &TenantDatabase) -> Result<DatabaseUser, StepError> {
        let users = self.shop.registry.users(self.tenant).await?;
        if let Some(pending) = users.iter().find(|u| u.status == UserStatus::Pending) {
            return Ok(pending.clone());
        }
        // No name comes back: a retirer of long ago may still drop it.
        let last = users.iter().map(|u| u.generation).max().unwrap_or(entry.generation).max(entry.generation);
        let generation = Generation(last.0 + 1);
        let Place { server, names } = self.site.place().await?;
        let role = names.login(generation).map_err(StepError::fail)?;
        Ok(DatabaseUser::pending(self.tenant, server.name.clone(), names.database.clone(), role, generation))
    }

    pub(super) async fn credential(&mut self, sealed: &Sealed) -> Result<CredentialId, StepError> {
        let database = &self.site.place().await?.names.database;
        Ok(CredentialId::login(self.tenant, database, &sealed.login, sealed.generation.0))
    }
    pub(super) async fn password(&mut self, sealed: &Sealed) -> Result<SecretString, StepError> {
        if let Some((_, password)) = &self.kept {
            return Ok(password.clone());
        }
        let id = self.credential(sealed).await?;
        let password = self.shop.vault.open(&id).await?;
        self.kept = Some((scram::verifier(&password).await, password.clone()));
        Ok(password)
    }

    /// The new login is there, as described, and may come in: also after a fence has shut it.
    pub(super) async fn ensure_login(&mut self, run: &Run, sealed: &Sealed) -> Result<(), StepError> {
        self.password(sealed).await?;
        let none = || StepError::retry("no password");
        let ((verifier, _), rules) = (self.kept.as_ref().ok_or_else(none)?, self.login);
        let names = self.site.place().await?.names.clone();
        let hold = self.site.hold(run).await?;
        hold.ensure_sealed(&names, &sealed.login, rules.access, rules.connection_limit, verifier).await
    }

    /// Whoever inherits what a login made by accident.
    pub(super) async fn heir(&mut self) -> Result<RoleName, StepError> {
        let access = self.login.access;
        Ok(ddl::acts_as(&self.site.place().await?.names.roles, access).clone())
    }

    pub(super) fn sealed(run: &Run) -> Result<Sealed, StepError> {
        run.output(SEAL)?.ok_or_else(|| StepError::fail("the step before has not said which login"))
    }
    pub(super) fn grace(run: &Run) -> Result<Duration, StepError> {
        Ok(Duration::from_millis(run.request::<Request>()?.grace_ms))
    }
}
