//! The password link: validate the token, find the tenant, open its credentials, connect, set the admin's password, once.
use super::{Request, SetupError, link};
use crate::cluster::pg::end;
use crate::cluster::{Workshop, application_name};
use crate::error::{ClusterError, StepError, VaultError};
use crate::operation::OperationId;
use crate::pool::connect;
use crate::saga::{Action, Run, Saga};
use crate::secret::CredentialId;
use crate::store::admin::AdminStore;
use crate::store::registry::TenantRegistryExt;
use crate::tenant::{TenantId, TenantStatus};
use async_trait::async_trait;
use serde_json::Value;
use sqlx::{ConnectOptions, Connection, PgConnection};
use std::{sync::Arc, time::Duration};

/// The stored name of the saga.
const KIND: &str = "setup_password";
/// For connecting to the tenant's database.
const CONNECT: Duration = Duration::from_secs(10);

/// Where the new password is kept until it is set.
pub(super) fn secret(tenant: TenantId, operation: OperationId) -> CredentialId {
    CredentialId::new_password(tenant, operation)
}

/// The plain list of its steps.
pub(super) struct PasswordSaga {
    shop: Workshop,
    admins: Arc<dyn AdminStore>,
    steps: Vec<Box<dyn Action<World>>>,
}

impl PasswordSaga {
    pub(super) fn new(shop: Workshop, admins: Arc<dyn AdminStore>) -> Self {
        let steps = [Password::Claim, Password::Set, Password::Use, Password::Forget];
        Self { shop, admins, steps: steps.map(|s| Box::new(s) as Box<dyn Action<World>>).into() }
    }
}

impl Saga for PasswordSaga {
    type World = World;
    fn kind(&self) -> &'static str {
        KIND
    }
    fn steps(&self) -> &[Box<dyn Action<World>>] {
        &self.steps
    }
    /// Using the token up: what was set stays set, and whoever could not finish may try again with the same link.
    fn no_return(&self) -> usize {
        2
    }
    fn world(&self, run: &Run) -> Result<World, StepError> {
        Ok(World { shop: self.shop.clone(), admins: self.admins.clone(), request: run.request()? })
    }
}

pub(super) struct World {
    shop: Workshop,
    admins: Arc<dyn AdminStore>,
    request: Request,
}

enum Password {
    Claim,
    Set,
    Use,
    Forget,
}

#[async_trait]
impl Action<World> for Password {
    fn name(&self) -> &'static str {
        match self {
            Self::Claim => link::CLAIM,
            Self::Set => "password.set",
            Self::Use => link::USE,
            Self::Forget => "secrets.forget",
        }
    }
    fn joins_previous(&self) -> bool {
        matches!(self, Self::Forget)
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        match self {
            Self::Claim => {
                world.only_active().await?;
                link::claim(run, &world.shop).await
            }
            Self::Set => world.set(run).await.map(|()| Value::Null),
            Self::Use => link::use_up(run, &world.shop).await,
            Self::Forget => world.forget(run).await.map(|()| Value::Null),
        }
    }
    async fn undo(&self, run: &Run, world: &mut World) -> Result<(), StepError> {
        match self {
            Self::Claim => {
                world.forget(run).await?;
                link::unclaim(run, &world.shop).await
            }
            Self::Set => world.end_sessions(run).await,
            Self::Use | Self::Forget => Ok(()),
        }
    }
}

impl World {
    async fn only_active(&self) -> Result<(), StepError> {
        let found = self.shop.registry.find(self.request.tenant.into()).await?;
        match found.ok_or_else(|| StepError::fail(SetupError::NotValid))? {
            tenant if tenant.status() == TenantStatus::Active => Ok(()),
            tenant => Err(StepError::fail(SetupError::Refused(tenant))),
        }
    }

    async fn set(&self, run: &Run) -> Result<(), StepError> {
        let password = match self.shop.vault.open(&secret(self.request.tenant, run.operation())).await {
            Err(VaultError::Missing(_)) => return Err(StepError::fail("its worker died before the password was kept")),
            opened => opened?,
        };
        let email = self.request.email.parse().map_err(StepError::fail)?;
        let mut session = self.connect(run).await?;
        // A worker whose time is over sets nothing any more: the next one ends what it has open, and what it opens later
        // stops here. Else it could overwrite, much later, what another link has set.
        run.check().await?;
        if !run.is_first() {
            end::workers(&mut session, &format!("tenantry/{}/", run.operation())).await?;
        }
        let set = self.admins.set_password(&mut session, &email, &password).await;
        let _ = session.close().await;
        Ok(set?)
    }

    /// Ends what this operation's workers have open in the tenant's database. The link is good again after this, and a
    /// worker that is only slow must not overwrite what the next post sets. A tenant that is not active has no sessions.
    async fn end_sessions(&self, run: &Run) -> Result<(), StepError> {
        let found = self.shop.registry.find(self.request.tenant.into()).await?;
        if !found.is_some_and(|tenant| tenant.status() == TenantStatus::Active) {
            return Ok(());
        }
        let mut session = self.connect(run).await?;
        let ended = end::workers(&mut session, &format!("tenantry/{}/", run.operation())).await;
        let _ = session.close().await;
        Ok(ended?)
    }

    /// As the application. A rotation may have replaced the login at this moment: then it is read again.
    async fn connect(&self, run: &Run) -> Result<PgConnection, StepError> {
        let none = || StepError::fail("the tenant has no directory entry");
        let entry = self.shop.registry.primary(self.request.tenant).await?.ok_or_else(none)?;
        let entry = self.shop.locate(entry).await?.map_err(StepError::fail)?;
        let login = self.shop.vault.open(&entry.credential).await;
        let login = login.map_err(|e| match e {
            VaultError::Missing(_) => StepError::retry(e),
            e => e.into(),
        })?;
        let options = connect::options(&entry, &login).application_name(&application_name(run));
        match tokio::time::timeout(CONNECT, crate::rt::fewer(options.connect())).await {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(error)) if crate::sqlstate::is_refused_login(&error) => Err(StepError::retry(error)),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(ClusterError::Deadline { phase: "connecting", limit: CONNECT }.into()),
        }
    }

    async fn forget(&self, run: &Run) -> Result<(), StepError> {
        Ok(self.shop.vault.forget(&secret(self.request.tenant, run.operation()), run.writer()).await?)
    }
}
