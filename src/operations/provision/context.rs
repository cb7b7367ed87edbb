//! What one worker of a provisioning holds, and what it works out once.
use super::ProvisionConfig;
use super::request::Request;
use crate::cluster::pg::scram::Verifier;
use crate::cluster::{Kept, LoginTarget, OperationContext, TenantLocation, TenantSessions, verified};
use crate::directory::{Generation, TenantDatabase};
use crate::error::StepError;
use crate::names::RoleName;
use crate::operations::step::{Connect, StepContext};
use crate::saga::Execution;
use crate::secret::CredentialId;
use crate::tenant::TenantId;
use async_trait::async_trait;
use secrecy::SecretString;
use sqlx::PgConnection;
use std::sync::Arc;

/// A provisioning makes the first login.
const FIRST: Generation = Generation(1);

pub(crate) struct ProvisionContext {
    pub(super) stores: OperationContext,
    pub(super) config: Arc<ProvisionConfig>,
    pub(super) request: Request,
    pub(super) tenant: TenantId,
    pub(super) sessions: TenantSessions,
    pub(super) kept: Option<Kept>,
    /// Whether this worker has made the application's login.
    pub(super) has_login: bool,
}

impl ProvisionContext {
    pub(super) fn new(
        stores: OperationContext, config: Arc<ProvisionConfig>, run: &Execution,
    ) -> Result<Self, StepError> {
        let sessions = TenantSessions::new(stores.clone(), run)?;
        Ok(Self {
            stores,
            config,
            request: run.request()?,
            tenant: sessions.tenant(),
            sessions,
            kept: None,
            has_login: false,
        })
    }

    pub(super) async fn login(&mut self) -> Result<RoleName, StepError> {
        self.sessions.location().await?.names.login(FIRST).map_err(StepError::fail)
    }

    pub(super) async fn credential(&mut self) -> Result<CredentialId, StepError> {
        let (login, tenant) = (self.login().await?, self.tenant);
        Ok(CredentialId::login(tenant, &self.sessions.location().await?.names.database, &login, FIRST.0))
    }

    /// The application's password as whoever comes later will find it.
    pub(super) async fn password(&mut self) -> Result<SecretString, StepError> {
        let id = self.credential().await?;
        Ok(self.stores.vault.open(&id).await?)
    }

    /// What the server gets of it, which is opened once; and where the server is.
    pub(super) async fn verifier(&mut self) -> Result<(&mut TenantSessions, &Verifier), StepError> {
        if self.kept.is_none() {
            let id = self.credential().await?;
            self.kept = Some(opened(&self.stores, &id).await?);
        }
        let (verifier, _) = self.kept.as_ref().ok_or_else(|| StepError::retry("no password"))?;
        Ok((&mut self.sessions, verifier))
    }

    /// The entry that will be published.
    pub(super) async fn entry(&mut self) -> Result<TenantDatabase, StepError> {
        let (login, credential) = (self.login().await?, self.credential().await?);
        let (tenant, settings) = (self.tenant, self.config.settings.clone());
        let TenantLocation { server, names } = self.sessions.location().await?;
        let (host, database) = (server.host.clone(), names.database.clone());
        let mut entry = TenantDatabase::primary(tenant, host, server.port, database, login, credential);
        entry.server = Some(server.name.clone());
        entry.roles = Some(names.roles.clone());
        // Without the server's TLS mode and certificate: a copy would outlive a change of its row.
        entry.settings = settings;
        Ok(entry)
    }

    pub(super) async fn app_door(&mut self) -> Result<LoginTarget, StepError> {
        let (login, password) = (self.login().await?, self.password().await?);
        let TenantLocation { server, names } = self.sessions.location().await?;
        Ok(server.login_target(&names.database, &login, password))
    }

    /// What a host's step sees. `migrator`: before activation.
    pub(super) async fn context(
        &mut self, run: &Execution, step: &'static str, migrator: bool,
    ) -> Result<StepContext, StepError> {
        let unknown = || StepError::fail("the tenant is gone");
        let tenant = self.stores.registry.find(self.tenant.into()).await?.ok_or_else(unknown)?;
        let migrator = if migrator { Some(self.sessions.migrator_door(run).await?) } else { None };
        let doors = Doors { run: run.clone(), migrator, app: self.app_door().await? };
        let (input, outputs) = (self.request.input.clone(), run.record().outputs.clone());
        Ok(StepContext::new(tenant, run.operation(), step, input, outputs, Some(Arc::new(doors))))
    }
}

/// The two ways into the tenant's database that a host's step may take.
struct Doors {
    run: Execution,
    migrator: Option<LoginTarget>,
    app: LoginTarget,
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

/// A password that was sealed, and what the server gets of it.
pub(super) async fn opened(stores: &OperationContext, id: &CredentialId) -> Result<Kept, StepError> {
    Ok(verified(stores.vault.open(id).await?).await)
}
