//! The sessions of one worker: the locked session on the tenant's server, and the session of the migrator.
//!
//! Each saga context owns a [`TenantSessions`] and asks it for a session when a step needs one; sessions are opened at
//! the first use. After an error the saga runner drops the whole value and builds a new one under a new epoch, so a
//! session is never reopened under the same epoch.
use super::{GeneratedPassword, LockedSession, LoginTarget, OperationContext, Preconnecting, application_name};
use crate::cluster::pg::session;
use crate::error::StepError;
use crate::names::TenantNames;
use crate::saga::Execution;
use crate::server::DatabaseServer;
use crate::store::journal::Intent;
use crate::tenant::TenantId;
use secrecy::SecretString;
use sqlx::PgConnection;

/// The tenant's location and one worker's sessions on its server. Each session is opened at most once.
pub(crate) struct TenantSessions {
    stores: OperationContext,
    tenant: TenantId,
    location: Option<TenantLocation>,
    preconnecting: Option<Preconnecting>,
    locked: Option<LockedSession>,
    /// The migrator's password, which is not stored. A new worker sets another one, so the old worker can no longer log
    /// in as the migrator.
    migrator_password: Option<SecretString>,
    migrator: Option<PgConnection>,
}

/// The server and the names of a tenant's objects on it, from its committed placement.
#[derive(Clone)]
pub(crate) struct TenantLocation {
    pub(crate) server: DatabaseServer,
    pub(crate) names: TenantNames,
}

impl OperationContext {
    /// Reads the tenant's location from the registry. `None` if it has no placement; then nothing of it is on any
    /// server.
    pub(crate) async fn find_location(&self, tenant: TenantId) -> Result<Option<TenantLocation>, StepError> {
        let Some((placement, server)) = self.servers.placement_and_server(tenant).await? else { return Ok(None) };
        let names = TenantNames::of(&placement.database).map_err(StepError::fail)?;
        Ok(Some(TenantLocation { server, names }))
    }
}

impl TenantSessions {
    /// Creates the value without opening a session.
    ///
    /// # Errors
    /// When the subject of the operation is not a tenant.
    pub(crate) fn new(stores: OperationContext, run: &Execution) -> Result<Self, StepError> {
        Ok(Self::of_tenant(stores, tenant_of(run)?))
    }
    /// As [`new`](Self::new), for the first worker of an operation whose intent the caller is about to commit. Starts
    /// to open the worker's session at once.
    pub(crate) fn start_preconnecting(stores: OperationContext, intent: &Intent, tenant: TenantId) -> Self {
        let preconnecting = Some(Preconnecting::start(stores.clone(), intent, tenant));
        Self { preconnecting, ..Self::of_tenant(stores, tenant) }
    }
    fn of_tenant(stores: OperationContext, tenant: TenantId) -> Self {
        Self {
            stores,
            tenant,
            location: None,
            preconnecting: None,
            locked: None,
            migrator_password: None,
            migrator: None,
        }
    }
    /// The tenant that the operation is about.
    pub(crate) fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Sets the location of a tenant that this worker has just placed, so that it is not read from the registry.
    pub(crate) fn set_location(&mut self, location: TenantLocation) {
        self.location = Some(location);
    }

    /// The tenant's location, read from the registry at the first call.
    ///
    /// # Errors
    /// When the tenant has no placement.
    pub(crate) async fn location(&mut self) -> Result<&TenantLocation, StepError> {
        let none = || StepError::fail("the tenant has no placement on a server");
        self.try_location().await?.ok_or_else(none)
    }

    /// As [`location`](Self::location), but `None` for a tenant without a placement; nothing of it is on any server.
    pub(crate) async fn try_location(&mut self) -> Result<Option<&TenantLocation>, StepError> {
        if self.location.is_none() {
            self.location = self.stores.find_location(self.tenant).await?;
        }
        Ok(self.location.as_ref())
    }

    /// The session that has the tenant's lock. The first call opens it, or takes the preconnected one, and takes the
    /// lock.
    pub(crate) async fn locked_session(&mut self, run: &Execution) -> Result<&mut LockedSession, StepError> {
        if self.locked.is_none() {
            let TenantLocation { server, names } = self.location().await?.clone();
            let preconnected = match self.preconnecting.take() {
                Some(preconnecting) => preconnecting.wait(&server).await?,
                None => None,
            };
            let opened = match preconnected {
                Some(preconnected) => preconnected,
                None => self.stores.open(self.tenant, run.record().lane, application_name(run), server).await?,
            };
            self.locked = Some(opened.take_lock(run, &names).await?);
        }
        self.locked.as_mut().ok_or_else(|| StepError::retry("the locked session was not opened"))
    }

    /// Makes sure that the migrator's role exists, with a password that only this worker knows, and returns its login
    /// target.
    pub(crate) async fn migrator_target(&mut self, run: &Execution) -> Result<LoginTarget, StepError> {
        let names = self.location().await?.names.clone();
        let password = match &self.migrator_password {
            Some(password) => password.clone(),
            None => {
                let GeneratedPassword { password, verifier } = GeneratedPassword::generate().await;
                self.locked_session(run).await?.ensure_migrator(&names, &verifier).await?;
                self.migrator_password.insert(password).clone()
            }
        };
        Ok(self.location().await?.server.login_target(&names.database, &names.migrator, password))
    }

    /// The session that runs migrations, with the settings that it had after login: each call resets what an earlier
    /// step has set. After an error inside a transaction it must not be used again; the saga runner then replaces the
    /// whole [`TenantSessions`].
    pub(crate) async fn migrator(&mut self, run: &Execution) -> Result<&mut PgConnection, StepError> {
        let session = match self.migrator.take() {
            Some(mut session) => {
                session::reset_settings(&mut session).await?;
                session
            }
            None => self.migrator_target(run).await?.open(run).await?,
        };
        Ok(self.migrator.insert(session))
    }

    /// Drops the migrator's role and closes its session. The migrator exists during one operation only. Does nothing on
    /// a server if the tenant has no placement, so that an undo ends although the placement was removed meanwhile.
    pub(crate) async fn drop_migrator(&mut self, run: &Execution) -> Result<(), StepError> {
        self.forget_migrator().await;
        let Some(TenantLocation { names, .. }) = self.try_location().await?.cloned() else { return Ok(()) };
        self.locked_session(run).await?.remove_login(&names, &names.migrator, &names.roles.owner).await
    }

    /// Closes the migrator's session and forgets its password. The next use sets a new password.
    pub(crate) async fn forget_migrator(&mut self) {
        self.migrator_password = None;
        if let Some(session) = self.migrator.take() {
            session::close(session).await;
        }
    }
}

/// The tenant that is the subject of the operation.
fn tenant_of(run: &Execution) -> Result<TenantId, StepError> {
    run.subject().tenant().ok_or_else(|| StepError::fail("the subject of this operation is not a tenant"))
}
