//! What one worker of a provisioning holds, and what it works out once.
use super::Recipe;
use super::request::Request;
use crate::database::{DatabaseServer, Generation, TenantDatabase, TenantNames};
use crate::error::StepError;
use crate::ident::RoleName;
use crate::pg;
use crate::saga::Run;
use crate::secret::CredentialId;
use crate::step::{Connect, StepContext};
use crate::tenant::TenantId;
use crate::worker::{Door, Hold, Workshop};
use async_trait::async_trait;
use secrecy::SecretString;
use sqlx::PgConnection;
use std::sync::Arc;

/// A provisioning makes the first login.
const FIRST: Generation = Generation(1);

pub(crate) struct World {
    pub(super) shop: Workshop,
    pub(super) recipe: Arc<Recipe>,
    pub(super) request: Request,
    pub(super) tenant: TenantId,
    place: Option<Place>,
    hold: Option<Hold>,
    /// The migrator's password, which is kept nowhere: a new worker sets a new one, which shuts out the old worker.
    migrator: Option<SecretString>,
}

/// Where the tenant goes, by its committed placement.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) server: DatabaseServer,
    pub(super) names: TenantNames,
}

impl World {
    pub(super) fn new(shop: Workshop, recipe: Arc<Recipe>, run: &Run) -> Result<Self, StepError> {
        let tenant = run.subject().tenant().ok_or_else(|| StepError::fail("a provisioning is about a tenant"))?;
        Ok(Self { shop, recipe, request: run.request()?, tenant, place: None, hold: None, migrator: None })
    }

    /// The tenant's place; an error if it has none.
    pub(super) async fn place(&mut self) -> Result<&Place, StepError> {
        let none = || StepError::fail("the tenant has no place");
        self.try_place().await?.ok_or_else(none)
    }

    /// The tenant's place, if the operation came that far.
    pub(super) async fn try_place(&mut self) -> Result<Option<&Place>, StepError> {
        if self.place.is_none() {
            let Some(placement) = self.shop.servers.placement(self.tenant).await? else { return Ok(None) };
            let unknown = || StepError::fail("the tenant's server is not registered any more");
            let load = self.shop.servers.server(&placement.server).await?.ok_or_else(unknown)?;
            let names = TenantNames::of(&placement.database).map_err(StepError::fail)?;
            self.place = Some(Place { server: load.server, names });
        }
        Ok(self.place.as_ref())
    }

    pub(super) async fn login(&mut self) -> Result<RoleName, StepError> {
        self.place().await?.names.login(FIRST).map_err(StepError::fail)
    }

    pub(super) async fn credential(&mut self) -> Result<CredentialId, StepError> {
        let (login, tenant) = (self.login().await?, self.tenant);
        Ok(CredentialId::login(tenant, &self.place().await?.names.database, &login, FIRST.0))
    }

    pub(super) async fn password(&mut self) -> Result<SecretString, StepError> {
        let id = self.credential().await?;
        Ok(self.shop.vault.open(&id).await?)
    }

    /// The entry that will be published.
    pub(super) async fn entry(&mut self) -> Result<TenantDatabase, StepError> {
        let (login, credential) = (self.login().await?, self.credential().await?);
        let (tenant, settings) = (self.tenant, self.recipe.settings.clone());
        let Place { server, names } = self.place().await?;
        let (host, database) = (server.host.clone(), names.database.clone());
        let mut entry = TenantDatabase::primary(tenant, host, server.port, database, login, credential);
        entry.server = Some(server.name.clone());
        entry.roles = Some(names.roles.clone());
        entry.settings = server.session_settings(settings);
        Ok(entry)
    }

    /// This worker's hold of the server: opened once, and never silently again.
    pub(super) async fn hold(&mut self, run: &Run) -> Result<&mut Hold, StepError> {
        if self.hold.is_none() {
            let Place { server, names } = self.place().await?.clone();
            self.hold = Some(self.shop.hold(run, server, &names).await?);
        }
        self.hold.as_mut().ok_or_else(|| StepError::retry("no hold"))
    }

    /// Makes sure that the migrator exists with a password that only this worker knows.
    pub(super) async fn migrator_door(&mut self, run: &Run) -> Result<Door, StepError> {
        let names = self.place().await?.names.clone();
        let password = match &self.migrator {
            Some(password) => password.clone(),
            None => {
                let password = pg::scram::password();
                self.hold(run).await?.ensure_migrator(&names, &password).await?;
                self.migrator = Some(password.clone());
                password
            }
        };
        Ok(self.place().await?.server.door(&names.database, &names.migrator, password))
    }

    /// A session that runs migrations.
    pub(super) async fn migrator(&mut self, run: &Run) -> Result<PgConnection, StepError> {
        let door = self.migrator_door(run).await?;
        door.open(run).await
    }

    pub(super) async fn app_door(&mut self) -> Result<Door, StepError> {
        let (login, password) = (self.login().await?, self.password().await?);
        let Place { server, names } = self.place().await?;
        Ok(server.door(&names.database, &login, password))
    }

    pub(super) fn forget_migrator(&mut self) {
        self.migrator = None;
    }

    /// What a host's step sees. `migrator`: before activation.
    pub(super) async fn context(
        &mut self, run: &Run, step: &'static str, migrator: bool,
    ) -> Result<StepContext, StepError> {
        let unknown = || StepError::fail("the tenant is gone");
        let tenant = self.shop.registry.find(self.tenant.into()).await?.ok_or_else(unknown)?;
        let migrator = if migrator { Some(self.migrator_door(run).await?) } else { None };
        let doors = Doors { run: run.clone(), migrator, app: self.app_door().await? };
        let (input, outputs) = (self.request.input.clone(), run.record().outputs.clone());
        Ok(StepContext::new(tenant, run.operation(), step, input, outputs, Some(Arc::new(doors))))
    }
}

/// The two ways into the tenant's database that a host's step may take.
struct Doors {
    run: Run,
    migrator: Option<Door>,
    app: Door,
}
#[async_trait]
impl Connect for Doors {
    async fn as_migrator(&self) -> Result<PgConnection, StepError> {
        let late = || StepError::fail("the migrator's login is gone after activation; use connect()");
        self.migrator.as_ref().ok_or_else(late)?.open(&self.run).await
    }
    async fn as_app(&self) -> Result<PgConnection, StepError> {
        self.app.open(&self.run).await
    }
}
