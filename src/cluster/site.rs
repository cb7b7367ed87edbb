use super::{Door, Fresh, Hold, Kept, Opening, Workshop};
use crate::cluster::pg::session;
use crate::error::StepError;
use crate::names::TenantNames;
use crate::saga::Run;
use crate::server::DatabaseServer;
use crate::tenant::TenantId;
use secrecy::SecretString;
use sqlx::PgConnection;

/// Where one worker works: the tenant's place, its hold of the server, and the migrator's way in. What it has opened it
/// opens once, and never silently again.
pub(crate) struct Site {
    shop: Workshop,
    tenant: TenantId,
    place: Option<Place>,
    opening: Option<Opening>,
    hold: Option<Hold>,
    /// The migrator's password, which is kept nowhere: a new worker sets a new one, which shuts out the old worker.
    migrator: Option<SecretString>,
    /// The next one, made while this worker waited for something else.
    ready: Option<Kept>,
    content: Option<PgConnection>,
}

/// Where the tenant is, by its committed placement.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) server: DatabaseServer,
    pub(crate) names: TenantNames,
}

impl Workshop {
    /// The tenant's place; `None` if it has none, and so nothing of ours.
    pub(crate) async fn place(&self, tenant: TenantId) -> Result<Option<Place>, StepError> {
        let Some((placement, server)) = self.servers.place(tenant).await? else { return Ok(None) };
        let names = TenantNames::of(&placement.database).map_err(StepError::fail)?;
        Ok(Some(Place { server, names }))
    }
}

impl Site {
    /// Nothing is open yet. An error for an operation that is about no tenant.
    pub(crate) fn new(shop: Workshop, run: &Run) -> Result<Self, StepError> {
        let tenant = run.subject().tenant().ok_or_else(|| StepError::fail("this operation is about a tenant"))?;
        let opening = shop.opening(run.operation());
        Ok(Self { shop, tenant, place: None, opening, hold: None, migrator: None, ready: None, content: None })
    }
    pub(crate) fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Where the tenant is: this worker has just placed it there.
    pub(crate) fn is_at(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// The tenant's place; an error if it has none.
    pub(crate) async fn place(&mut self) -> Result<&Place, StepError> {
        let none = || StepError::fail("the tenant has no place");
        self.try_place().await?.ok_or_else(none)
    }

    /// The tenant's place; `None` if it has none, and so nothing of ours.
    pub(crate) async fn try_place(&mut self) -> Result<Option<&Place>, StepError> {
        if self.place.is_none() {
            self.place = match self.opening.as_ref().and_then(Opening::place) {
                Some(place) => Some(place.clone()),
                None => self.shop.place(self.tenant).await?,
            };
        }
        Ok(self.place.as_ref())
    }

    /// A password that nobody has yet.
    pub(crate) fn fresh(&mut self) -> Fresh {
        self.opening.as_mut().and_then(Opening::fresh).unwrap_or_else(Fresh::new)
    }

    /// This worker's hold of the server.
    pub(crate) async fn hold(&mut self, run: &Run) -> Result<&mut Hold, StepError> {
        if let Some(opening) = self.opening.take() {
            let (place, opened) = opening.done().await?;
            self.hold = Some(opened.behind_fence(run, &place.names).await?);
            self.place.get_or_insert(place);
        }
        if self.hold.is_none() {
            let Place { server, names } = self.place().await?.clone();
            self.hold = Some(self.shop.hold(run, server, &names).await?);
        }
        self.hold.as_mut().ok_or_else(|| StepError::retry("no hold"))
    }

    /// Makes sure that the migrator exists with a password that only this worker knows.
    pub(crate) async fn migrator_door(&mut self, run: &Run) -> Result<Door, StepError> {
        let names = self.place().await?.names.clone();
        let password = match &self.migrator {
            Some(password) => password.clone(),
            None => {
                let (verifier, password) = match self.ready.take() {
                    Some(ready) => ready,
                    None => Fresh::new().made().await,
                };
                self.hold(run).await?.ensure_migrator(&names, &verifier).await?;
                self.migrator = Some(password.clone());
                password
            }
        };
        Ok(self.place().await?.server.door(&names.database, &names.migrator, password))
    }

    /// The migrator's next password is this fresh one.
    pub(crate) fn make_ready(&mut self, fresh: Kept) {
        self.ready = Some(fresh);
    }

    /// The session that runs migrations, as it is after its login: whatever an earlier step has set is forgotten. After
    /// an error inside a transaction it is not to be used again; the engine then makes the whole site anew.
    pub(crate) async fn migrator(&mut self, run: &Run) -> Result<&mut PgConnection, StepError> {
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
    pub(crate) async fn migrator_and_hold(&mut self, run: &Run) -> Result<(&mut PgConnection, &mut Hold), StepError> {
        self.hold(run).await?;
        self.migrator(run).await?;
        match (&mut self.content, &mut self.hold) {
            (Some(content), Some(hold)) => Ok((content, hold)),
            _ => Err(StepError::retry("no session")),
        }
    }

    /// The migrator lives for one operation: neither role nor session is left of it.
    pub(crate) async fn drop_migrator(&mut self, run: &Run) -> Result<(), StepError> {
        let names = self.place().await?.names.clone();
        self.forget_migrator().await;
        self.hold(run).await?.remove_login(&names, &names.migrator, &names.roles.owner).await
    }

    /// The next one who asks for it gets one with a new password.
    pub(crate) async fn forget_migrator(&mut self) {
        self.migrator = None;
        if let Some(session) = self.content.take() {
            session::close(session).await;
        }
    }
}
