//! State of one worker of a provisioning: its sessions and the values that it computes once.
//!
//! The engine makes a new [`ProvisionContext`] for each worker and after each error. Nothing here is the only copy of a
//! value: passwords come from the vault and names from the stored placement.
use super::ProvisionConfig;
use super::request::Request;
use crate::cluster::{GeneratedPassword, LoginTarget, OperationContext, TenantLocation, TenantSessions, schema_state};
use crate::directory::{Generation, TenantDatabase};
use crate::error::StepError;
use crate::names::RoleName;
use crate::operations::step::{Connect, StepContext};
use crate::saga::Execution;
use crate::secret::CredentialId;
use crate::tenant::TenantId;
use async_trait::async_trait;
use sqlx::PgConnection;
use std::sync::Arc;

/// Generation of the login that a provisioning creates.
const FIRST_GENERATION: Generation = Generation(1);

/// Stores, sessions and cached values of one worker of a provisioning.
pub(crate) struct ProvisionContext {
    pub(super) stores: OperationContext,
    pub(super) config: Arc<ProvisionConfig>,
    pub(super) request: Request,
    pub(super) tenant: TenantId,
    pub(super) sessions: TenantSessions,
    /// The password of the application's login, once this worker has opened it.
    app_password: Option<GeneratedPassword>,
}

impl ProvisionContext {
    pub(super) fn new(
        stores: OperationContext, config: Arc<ProvisionConfig>, run: &Execution,
    ) -> Result<Self, StepError> {
        let sessions = TenantSessions::new(stores.clone(), run)?;
        Ok(Self { stores, config, request: run.request()?, tenant: sessions.tenant(), sessions, app_password: None })
    }

    /// Name of the application's login.
    pub(super) async fn login(&mut self) -> Result<RoleName, StepError> {
        self.sessions.location().await?.names.login(FIRST_GENERATION).map_err(StepError::fail)
    }

    /// Id of the application's password in the vault.
    pub(super) async fn credential(&mut self) -> Result<CredentialId, StepError> {
        let (login, tenant) = (self.login().await?, self.tenant);
        Ok(CredentialId::login(tenant, &self.sessions.location().await?.names.database, &login, FIRST_GENERATION.0))
    }

    /// The password of the application's login, opened from the vault once per worker. Every worker of the operation
    /// reads the same one.
    pub(super) async fn password(&mut self) -> Result<&GeneratedPassword, StepError> {
        if self.app_password.is_none() {
            let id = self.credential().await?;
            self.app_password = Some(GeneratedPassword::from_stored(self.stores.vault.open(&id).await?).await);
        }
        self.app_password.as_ref().ok_or_else(|| StepError::retry("the application's password was not read"))
    }

    /// Makes sure that the application's login exists.
    pub(super) async fn ensure_login(&mut self, run: &Execution) -> Result<(), StepError> {
        let login = self.login().await?;
        let names = self.sessions.location().await?.names.clone();
        self.password().await?;
        let Self { sessions, config, app_password: Some(password), .. } = self else {
            return Err(StepError::retry("the application's password was not read"));
        };
        let locked = sessions.locked_session(run).await?;
        locked.ensure_login(&names, &login, config.access, config.connection_limit, &password.verifier).await
    }

    /// The directory entry to publish.
    pub(super) async fn entry(&mut self) -> Result<TenantDatabase, StepError> {
        let (login, credential) = (self.login().await?, self.credential().await?);
        let (tenant, settings) = (self.tenant, self.config.settings.clone());
        let TenantLocation { server, names } = self.sessions.location().await?;
        let (host, database) = (server.host.clone(), names.database.clone());
        let mut entry = TenantDatabase::primary(tenant, host, server.port, database, login, credential);
        entry.server = Some(server.name.clone());
        entry.roles = Some(names.roles.clone());
        // The entry does not copy the server's TLS mode and certificate: the copy would be stale when the server's row
        // changes.
        entry.settings = settings;
        entry.schema_state = schema_state::of_migrations(self.config.migrations);
        Ok(entry)
    }

    /// Where and as which role to connect for a session of the application's login. Its password is read from the vault
    /// each time, as a resolver does, so that a probe also checks what the vault returns.
    pub(super) async fn app_login_target(&mut self) -> Result<LoginTarget, StepError> {
        let (login, credential) = (self.login().await?, self.credential().await?);
        let password = self.stores.vault.open(&credential).await?;
        let TenantLocation { server, names } = self.sessions.location().await?;
        Ok(server.login_target(&names.database, &login, password))
    }

    /// The context for a step of the application before activation. Such a step may connect as the migrator.
    pub(super) async fn step_context(&mut self, run: &Execution, step: &'static str) -> Result<StepContext, StepError> {
        let id = self.tenant;
        let unknown = || StepError::fail(format!("tenant {id} is not in the registry"));
        let tenant = self.stores.registry.find(id.into()).await?.ok_or_else(unknown)?;
        let migrator = self.sessions.migrator_target(run).await?;
        let targets = LoginTargets { run: run.clone(), migrator, app: self.app_login_target().await? };
        let (input, outputs) = (self.request.input.clone(), run.record().outputs.clone());
        Ok(StepContext::new(tenant, run.operation(), step, input, outputs, Some(Arc::new(targets))))
    }
}

/// The two logins by which a step before activation may connect to the tenant's database.
struct LoginTargets {
    run: Execution,
    migrator: LoginTarget,
    app: LoginTarget,
}
#[async_trait]
impl Connect for LoginTargets {
    async fn as_migrator(&self) -> Result<PgConnection, StepError> {
        self.migrator.open(&self.run).await
    }
    async fn as_app(&self) -> Result<PgConnection, StepError> {
        self.app.open(&self.run).await
    }
}
