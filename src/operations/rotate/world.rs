use super::sealed::{SEAL, Sealed, ours, primary};
use super::{AppLogin, Request};
use crate::cluster::pg::ddl;
use crate::cluster::{Kept, Site, Standby, Workshop, verified};
use crate::directory::{DatabaseUser, TenantDatabase, UserStatus};
use crate::error::StepError;
use crate::names::RoleName;
use crate::saga::Run;
use crate::secret::CredentialId;
use crate::tenant::TenantId;
use secrecy::SecretString;
use std::time::Duration;

/// What one worker of a rotation holds.
pub(crate) struct World {
    pub(crate) shop: Workshop,
    pub(super) login: AppLogin,
    pub(crate) tenant: TenantId,
    pub(super) site: Site,
    /// The new login's, once this worker has sealed or opened it.
    pub(super) kept: Option<Kept>,
    /// The tenant's directory entries, as of the seal.
    pub(super) entries: Option<Vec<TenantDatabase>>,
}

impl World {
    pub(crate) fn new(shop: Workshop, login: AppLogin, run: &Run) -> Result<Self, StepError> {
        let site = Site::new(shop.clone(), run)?;
        Ok(Self { shop, login, tenant: site.tenant(), site, kept: None, entries: None })
    }

    async fn entries(&mut self) -> Result<&[TenantDatabase], StepError> {
        let entries = match self.entries.take() {
            Some(entries) => entries,
            None => self.shop.registry.databases(self.tenant).await?,
        };
        Ok(self.entries.insert(entries))
    }
    /// The entry that is in use.
    pub(super) async fn entry(&mut self) -> Result<TenantDatabase, StepError> {
        let primary = primary(self.entries().await?).cloned();
        ours(primary, self.site.place().await?)
    }
    /// The tenant's standbys.
    pub(super) async fn standbys(&mut self) -> Result<Vec<Standby>, StepError> {
        let database = self.site.place().await?.names.database.clone();
        Ok(Standby::among(self.entries().await?, &database))
    }

    /// The logins that this rotation has made or is about to make. The lane is its own, so nobody else's are pending.
    pub(super) async fn pending(&self) -> Result<Vec<DatabaseUser>, StepError> {
        let users = self.shop.registry.users(self.tenant).await?;
        Ok(users.into_iter().filter(|u| u.status == UserStatus::Pending).collect())
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
        self.kept = Some(verified(password.clone()).await);
        Ok(password)
    }

    /// The new login is there, as described, and may come in: also after a fence has shut it.
    pub(super) async fn ensure_login(&mut self, run: &Run, sealed: &Sealed) -> Result<(), StepError> {
        self.password(sealed).await?;
        let none = || StepError::retry("no password");
        let ((verifier, _), rules) = (self.kept.as_ref().ok_or_else(none)?, self.login);
        let names = self.site.place().await?.names.clone();
        let hold = self.site.hold(run).await?;
        hold.ensure_sealed(&names, &sealed.login, rules.access, rules.connection_limit, verifier).await?;
        // Also the old login, which may serve for as long as the grace. One that cannot be altered is about to go anyway.
        hold.limit_logins(std::slice::from_ref(&sealed.old), rules.connection_limit).await.map(drop)
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
