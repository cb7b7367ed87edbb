use super::login_change::{LoginChange, SEAL, ours, primary};
use super::{AppLogin, Request};
use crate::cluster::pg::ddl;
use crate::cluster::{Kept, OperationContext, Standby, TenantSessions, verified};
use crate::directory::{DatabaseUser, TenantDatabase, UserStatus};
use crate::error::StepError;
use crate::names::RoleName;
use crate::saga::Execution;
use crate::secret::CredentialId;
use crate::tenant::TenantId;
use secrecy::SecretString;
use std::time::Duration;

/// What one worker of a rotation holds.
pub(crate) struct RotateContext {
    pub(crate) stores: OperationContext,
    pub(super) login: AppLogin,
    pub(crate) tenant: TenantId,
    pub(super) sessions: TenantSessions,
    /// The new login's, once this worker has sealed or opened it.
    pub(super) kept: Option<Kept>,
    /// The tenant's directory entries, as of the seal.
    pub(super) entries: Option<Vec<TenantDatabase>>,
}

impl RotateContext {
    pub(crate) fn new(stores: OperationContext, login: AppLogin, run: &Execution) -> Result<Self, StepError> {
        let sessions = TenantSessions::new(stores.clone(), run)?;
        Ok(Self { stores, login, tenant: sessions.tenant(), sessions, kept: None, entries: None })
    }

    async fn entries(&mut self) -> Result<&[TenantDatabase], StepError> {
        let entries = match self.entries.take() {
            Some(entries) => entries,
            None => self.stores.registry.databases(self.tenant).await?,
        };
        Ok(self.entries.insert(entries))
    }
    /// The entry that is in use.
    pub(super) async fn entry(&mut self) -> Result<TenantDatabase, StepError> {
        let primary = primary(self.entries().await?).cloned();
        ours(primary, self.sessions.location().await?)
    }
    /// The tenant's standbys.
    pub(super) async fn standbys(&mut self) -> Result<Vec<Standby>, StepError> {
        let database = self.sessions.location().await?.names.database.clone();
        Ok(Standby::among(self.entries().await?, &database))
    }

    /// The logins that this rotation has made or is about to make. The lane is its own, so nobody else's are pending.
    pub(super) async fn pending(&self) -> Result<Vec<DatabaseUser>, StepError> {
        let users = self.stores.registry.users(self.tenant).await?;
        Ok(users.into_iter().filter(|u| u.status == UserStatus::Pending).collect())
    }

    pub(super) async fn credential(&mut self, change: &LoginChange) -> Result<CredentialId, StepError> {
        let database = &self.sessions.location().await?.names.database;
        Ok(CredentialId::login(self.tenant, database, &change.login, change.generation.0))
    }
    pub(super) async fn password(&mut self, change: &LoginChange) -> Result<SecretString, StepError> {
        if let Some((_, password)) = &self.kept {
            return Ok(password.clone());
        }
        let id = self.credential(change).await?;
        let password = self.stores.vault.open(&id).await?;
        self.kept = Some(verified(password.clone()).await);
        Ok(password)
    }

    /// The new login is there, as described, and may come in: also after a fence has shut it.
    pub(super) async fn ensure_login(&mut self, run: &Execution, change: &LoginChange) -> Result<(), StepError> {
        self.password(change).await?;
        let none = || StepError::retry("no password");
        let ((verifier, _), rules) = (self.kept.as_ref().ok_or_else(none)?, self.login);
        let names = self.sessions.location().await?.names.clone();
        let locked = self.sessions.locked_session(run).await?;
        locked.ensure_sealed(&names, &change.login, rules.access, rules.connection_limit, verifier).await?;
        // Also the old login, which may serve for as long as the grace. One that cannot be altered is about to go anyway.
        locked.limit_logins(std::slice::from_ref(&change.old), rules.connection_limit).await.map(drop)
    }

    /// Whoever inherits what a login made by accident.
    pub(super) async fn new_owner(&mut self) -> Result<RoleName, StepError> {
        let access = self.login.access;
        Ok(ddl::acts_as(&self.sessions.location().await?.names.roles, access).clone())
    }

    pub(super) fn change(run: &Execution) -> Result<LoginChange, StepError> {
        run.output(SEAL)?.ok_or_else(|| StepError::fail("the step before has not said which login"))
    }
    pub(super) fn grace(run: &Execution) -> Result<Duration, StepError> {
        Ok(Duration::from_millis(run.request::<Request>()?.grace_ms))
    }
}
