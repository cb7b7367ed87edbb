use super::{Fresh, Kept, LockedSession, LoginTarget, OperationContext, Preconnecting};
use crate::cluster::pg::session;
use crate::error::StepError;
use crate::names::TenantNames;
use crate::saga::Execution;
use crate::server::DatabaseServer;
use crate::tenant::TenantId;
use secrecy::SecretString;
use sqlx::PgConnection;

/// Where one worker works: the tenant's place, its hold of the server, and the migrator's way in. What it has opened it
/// opens once, and never silently again.
pub(crate) struct TenantSessions {
    stores: OperationContext,
    tenant: TenantId,
    place: Option<TenantLocation>,
    preconnecting: Option<Preconnecting>,
    locked: Option<LockedSession>,
    /// The migrator's password, which is kept nowhere: a new worker sets a new one, which shuts out the old worker.
    migrator: Option<SecretString>,
    /// The next one, made while this worker waited for something else.
    ready: Option<Kept>,
    content: Option<PgConnection>,
}

/// Where the tenant is, by its committed placement.
#[derive(Clone)]
pub(crate) struct TenantLocation {
    pub(crate) server: DatabaseServer,
    pub(crate) names: TenantNames,
}

impl OperationContext {
    /// The tenant's place; `None` if it has none, and so nothing of ours.
    pub(crate) async fn place(&self, tenant: TenantId) -> Result<Option<TenantLocation>, StepError> {
        let Some((placement, server)) = self.servers.place(tenant).await? else { return Ok(None) };
        let names = TenantNames::of(&placement.database).map_err(StepError::fail)?;
        Ok(Some(TenantLocation { server, names }))
    }
}

impl TenantSessions {
    /// Nothing is open yet. An error for an operation that is about no tenant.
    pub(crate) fn new(stores: OperationContext, run: &Execution) -> Result<Self, StepError> {
        let tenant = run.subject().tenant().ok_or_else(|| StepError::fail("this operation is about a tenant"))?;
        let preconnecting = stores.preconnecting(run.operation());
        Ok(Self {
            stores,
            tenant,
            place: None,
            preconnecting,
            locked: None,
            migrator: None,
            ready: None,
            content: None,
        })
    }
    pub(crate) fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Where the tenant is: this worker has just placed it there.
    pub(crate) fn is_at(&mut self, place: TenantLocation) {
        self.place = Some(place);
    }

    /// The tenant's place; an error if it has none.
    pub(crate) async fn location(&mut self) -> Result<&TenantLocation, StepError> {
        let none = || StepError::fail("the tenant has no place");
        self.try_location().await?.ok_or_else(none)
    }

    /// The tenant's place; `None` if it has none, and so nothing of ours.
    pub(crate) async fn try_location(&mut self) -> Result<Option<&TenantLocation>, StepError> {
        if self.place.is_none() {
            self.place = match self.preconnecting.as_ref().and_then(Preconnecting::place) {
                Some(place) => Some(place.clone()),
                None => self.stores.place(self.tenant).await?,
            };
        }
        Ok(self.place.as_ref())
    }

    /// A password that nobody has yet.
    pub(crate) fn fresh(&mut self) -> Fresh {
        self.preconnecting.as_mut().and_then(Preconnecting::fresh).unwrap_or_else(Fresh::new)
    }

    /// This worker's hold of the server.
    pub(crate) async fn locked_session(&mut self, run: &Execution) -> Result<&mut LockedSession, StepError> {
        if let Some(preconnecting) = self.preconnecting.take() {
            let (place, opened) = preconnecting.done().await?;
            self.locked = Some(opened.behind_fence(run, &place.names).await?);
            self.place.get_or_insert(place);
        }
        if self.locked.is_none() {
            let TenantLocation { server, names } = self.location().await?.clone();
            self.locked = Some(self.stores.locked_session(run, server, &names).await?);
        }
        self.locked.as_mut().ok_or_else(|| StepError::retry("no hold"))
    }

    /// Makes sure that the migrator exists with a password that only this worker knows.
    pub(crate) async fn migrator_door(&mut self, run: &Execution) -> Result<LoginTarget, StepError> {
        let names = self.location().await?.names.clone();
        let password = match &self.migrator {
            Some(password) => password.clone(),
            None => {
                let (verifier, password) = match self.ready.take() {
                    Some(ready) => ready,
                    None => Fresh::new().made().await,
                };
                self.locked_session(run).await?.ensure_migrator(&names, &verifier).await?;
                self.migrator = Some(password.clone());
                password
            }
        };
        Ok(self.location().await?.server.login_target(&names.database, &names.migrator, password))
    }

    /// The migrator's next password is this fresh one.
    pub(crate) fn make_ready(&mut self, fresh: Kept) {
        self.ready = Some(fresh);
    }

    /// The session that runs migrations, as it is after its login: whatever an earlier step has set is forgotten. After
    /// an error inside a transaction it is not to be used again; the engine then makes the whole site anew.
    pub(crate) async fn migrator(&mut self, run: &Execution) -> Result<&mut PgConnection, StepError> {
        let session = match self.content.take() {
            Some(mut session) => {
                session::forget_settings(&mut session).await?;
                session
            }
            None => self.migrator_door(run).await?.open(run).await?,
        };
        Ok(self.content.insert(session))
    }

    /// The migrator's session, and beside it the hold, which is idle meanwhile.
    pub(crate) async fn migrator_and_hold(
        &mut self, run: &Execution,
    ) -> Result<(&mut PgConnection, &mut LockedSession), StepError> {
        self.locked_session(run).await?;
        self.migrator(run).await?;
        match (&mut self.content, &mut self.locked) {
            (Some(content), Some(locked)) => Ok((content, locked)),
            _ => Err(StepError::retry("no session")),
        }
    }

    /// The migrator lives for one operation: neither role nor session is left of it.
    pub(crate) async fn drop_migrator(&mut self, run: &Execution) -> Result<(), StepError> {
        let names = self.location().await?.names.clone();
        self.forget_migrator().await;
        self.locked_session(run).await?.remove_login(&names, &names.migrator, &names.roles.owner).await
    }

    /// The next one who asks for it gets one with a new password.
    pub(crate) async fn forget_migrator(&mut self) {
        self.migrator = None;
        if let Some(session) = self.content.take() {
            session::close(session).await;
        }
    }
}
