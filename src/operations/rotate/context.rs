//! State of one worker of a rotation: its sessions and what it has read or generated once.
//!
//! The engine makes a new [`RotateContext`] for each worker and after each error. The steps of a rotation and of a
//! credentials link share it. Every cached value here can be read again from the stores.
use super::login_change::{LoginChange, SEAL, require_managed};
use super::{AppLogin, Request};
use crate::cluster::pg::ddl;
use crate::cluster::{GeneratedPassword, OperationContext, Standby, TenantSessions};
use crate::directory::{DatabaseUser, TenantDatabase, UserStatus};
use crate::error::StepError;
use crate::names::RoleName;
use crate::saga::Execution;
use crate::secret::CredentialId;
use crate::store::journal::Intent;
use crate::tenant::TenantId;
use std::time::Duration;

/// Sessions and cached values of one worker of a rotation.
pub(crate) struct RotateContext {
    pub(crate) stores: OperationContext,
    pub(super) login: AppLogin,
    pub(crate) tenant: TenantId,
    pub(crate) sessions: TenantSessions,
    /// The new login's password, once this worker has opened it.
    pub(super) new_password: Option<GeneratedPassword>,
    /// The tenant's directory entries, as this worker last read them; `None` reads them again.
    pub(super) entries: Option<Vec<TenantDatabase>>,
}

impl RotateContext {
    pub(crate) fn new(stores: OperationContext, login: AppLogin, run: &Execution) -> Result<Self, StepError> {
        Ok(Self::from_sessions(TenantSessions::new(stores.clone(), run)?, stores, login))
    }
    /// As [`new`](Self::new), for the first worker of an operation whose intent the caller is about to commit. Starts
    /// to open the worker's session at once.
    pub(super) fn start_preconnecting(
        stores: OperationContext, login: AppLogin, intent: &Intent, tenant: TenantId,
    ) -> Self {
        Self::from_sessions(TenantSessions::start_preconnecting(stores.clone(), intent, tenant), stores, login)
    }
    fn from_sessions(sessions: TenantSessions, stores: OperationContext, login: AppLogin) -> Self {
        Self { stores, login, tenant: sessions.tenant(), sessions, new_password: None, entries: None }
    }

    async fn read_entries(&mut self) -> Result<&[TenantDatabase], StepError> {
        let entries = match self.entries.take() {
            Some(entries) => entries,
            None => self.stores.registry.databases(self.tenant).await?,
        };
        Ok(self.entries.insert(entries))
    }
    /// The tenant's primary entry. It fails if tenantry did not create the login of that entry.
    pub(super) async fn primary_entry(&mut self) -> Result<TenantDatabase, StepError> {
        let location = self.sessions.try_location().await?.cloned();
        require_managed(self.read_entries().await?, location.as_ref()).cloned()
    }
    /// The tenant's standbys, from its directory entries.
    pub(super) async fn standbys(&mut self) -> Result<Vec<Standby>, StepError> {
        let database = self.sessions.location().await?.names.database.clone();
        let stores = self.stores.clone();
        Ok(stores.standbys_among(self.read_entries().await?, &database))
    }

    /// The logins that this rotation has created or is about to create. Only the operation that holds the tenant's
    /// change lane stores pending logins, so all of them belong to this rotation. The login that a directory entry names
    /// is in use and so is none of them, whatever is recorded about it.
    pub(super) async fn pending_logins(&self) -> Result<Vec<DatabaseUser>, StepError> {
        let users = self.stores.registry.users(self.tenant).await?;
        let entries = self.stores.registry.databases(self.tenant).await?;
        let is_in_use = |user: &DatabaseUser| entries.iter().any(|entry| entry.login == user.role);
        Ok(users.into_iter().filter(|u| u.status == UserStatus::Pending && !is_in_use(u)).collect())
    }

    /// Id of the new login's password in the vault.
    pub(crate) async fn credential(&mut self, change: &LoginChange) -> Result<CredentialId, StepError> {
        let database = &self.sessions.location().await?.names.database;
        Ok(CredentialId::login(self.tenant, database, &change.login, change.generation.0))
    }
    /// The new login's password and verifier, opened from the vault once per worker.
    pub(super) async fn password(&mut self, change: &LoginChange) -> Result<&GeneratedPassword, StepError> {
        if self.new_password.is_none() {
            let id = self.credential(change).await?;
            self.new_password = Some(GeneratedPassword::from_stored(self.stores.vault.open(&id).await?).await);
        }
        self.new_password.as_ref().ok_or_else(|| StepError::retry("the password of the new login was not read"))
    }

    /// Makes sure that the new login exists with its password, rights and limit, and may log in. This also restores a
    /// login that a preempting operation has refused.
    pub(crate) async fn ensure_login(&mut self, run: &Execution, change: &LoginChange) -> Result<(), StepError> {
        self.password(change).await?;
        let names = self.sessions.location().await?.names.clone();
        let Self { sessions, login: AppLogin { access, connection_limit }, new_password: Some(new), .. } = self else {
            return Err(StepError::retry("the password of the new login was not read"));
        };
        let locked = sessions.locked_session(run).await?;
        locked.ensure_login(&names, &change.login, *access, *connection_limit, &new.verifier).await?;
        if Self::grace(run)?.is_zero() {
            return Ok(());
        }
        // The old login may have sessions until the grace period is over, so it needs the limit too. If it cannot be
        // altered the failure is ignored, because the old login is dropped soon.
        locked.limit_logins(std::slice::from_ref(&change.old), *connection_limit).await.map(drop)
    }

    /// The role that becomes owner of objects that a dropped login owned: the group role that the login acts as.
    pub(super) async fn new_owner(&mut self) -> Result<RoleName, StepError> {
        let access = self.login.access;
        Ok(ddl::acts_as(&self.sessions.location().await?.names.roles, access).clone())
    }

    /// The change of logins that step `secrets.seal` has stored.
    pub(crate) fn login_change(run: &Execution) -> Result<LoginChange, StepError> {
        run.output(SEAL)?
            .ok_or_else(|| StepError::fail("step secrets.seal has stored no output, so the new login is unknown"))
    }
    /// Grace period for the sessions of the old login.
    pub(super) fn grace(run: &Execution) -> Result<Duration, StepError> {
        Ok(Duration::from_millis(run.request::<Request>()?.grace_ms))
    }
}
