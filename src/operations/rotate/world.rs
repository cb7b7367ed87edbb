use super::steps::{SEAL, Sealed};
use super::{AppLogin, Request};
use crate::cluster::pg::ddl;
use crate::cluster::{Kept, Place, Site, Standby, Workshop, verified};
use crate::database::{DatabaseKind, DatabaseStatus, DatabaseUser, Generation, TenantDatabase, UserStatus};
use crate::error::{ChangeError, StepError};
use crate::ident::RoleName;
use crate::saga::Run;
use crate::secret::CredentialId;
use crate::tenant::{Tenant, TenantId, TenantStatus};
use futures_util::future::try_join3;
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

fn primary(entries: &[TenantDatabase]) -> Option<&TenantDatabase> {
    entries.iter().find(|e| e.kind == DatabaseKind::Primary)
}

/// The tenant's entries, the one that is in use, and the new login: the one that is pending, or else the next one.
pub(super) async fn next(
    shop: &Workshop, id: TenantId, place: Option<Place>,
) -> Result<(Vec<TenantDatabase>, TenantDatabase, DatabaseUser), StepError> {
    let registry = &shop.registry;
    let known = try_join3(registry.find(id.into()), registry.databases(id), registry.users(id));
    let (tenant, entries, users) = known.await?;
    only_active(tenant)?;
    let place = place.ok_or_else(|| StepError::fail("the tenant has no place"))?;
    let entry = ours(primary(&entries).cloned(), &place)?;
    if let Some(pending) = users.iter().find(|u| u.status == UserStatus::Pending) {
        return Ok((entries, entry, pending.clone()));
    }
    // No name comes back: a retirer of long ago may still drop it.
    let last = users.iter().map(|u| u.generation).max().unwrap_or(entry.generation).max(entry.generation);
    let generation = Generation(last.0 + 1);
    let role = place.names.login(generation).map_err(StepError::fail)?;
    let user = DatabaseUser::pending(id, place.server.name, place.names.database, role, generation);
    Ok((entries, entry, user))
}

/// An entry on a shared login, or on a server that is not ours, has nothing to rotate.
fn ours(entry: Option<TenantDatabase>, place: &Place) -> Result<TenantDatabase, StepError> {
    let entry = entry.ok_or_else(|| StepError::fail("the tenant has no directory entry"))?;
    let ours = entry.server.as_ref() == Some(&place.server.name) && entry.database == place.names.database;
    match entry.status {
        DatabaseStatus::Active if ours => Ok(entry),
        _ => Err(StepError::fail("the tenant's login was not made by tenantry; adopt its database first")),
    }
}

/// It was active before the lane was taken, and a fence may have ended in between.
fn only_active(tenant: Option<Tenant>) -> Result<(), StepError> {
    match tenant.map(|tenant| tenant.status()) {
        Some(TenantStatus::Active) => Ok(()),
        Some(found) => Err(StepError::fail(ChangeError::Status { found })),
        None => Err(StepError::fail(ChangeError::Unknown)),
    }
}
