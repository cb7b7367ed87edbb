//! The password link: validate the token, find the tenant, open its credentials, connect, set the admin's password, once.
use super::{Request, SetupLinkError, link};
use crate::cluster::pg::terminate;
use crate::cluster::{OperationContext, application_name};
use crate::error::{ClusterError, StepError, VaultError};
use crate::operation::OperationId;
use crate::pool::connect;
use crate::saga::{Execution, Saga, SagaStep};
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
    stores: OperationContext,
    admins: Arc<dyn AdminStore>,
    steps: Vec<Box<dyn SagaStep<PasswordContext>>>,
}

impl PasswordSaga {
    pub(super) fn new(stores: OperationContext, admins: Arc<dyn AdminStore>) -> Self {
        let steps = [Password::Claim, Password::Set, Password::Use, Password::Forget];
        Self { stores, admins, steps: steps.map(|s| Box::new(s) as Box<dyn SagaStep<PasswordContext>>).into() }
    }
}

impl Saga for PasswordSaga {
    type Context = PasswordContext;
    fn kind(&self) -> &'static str {
        KIND
    }
    fn steps(&self) -> &[Box<dyn SagaStep<PasswordContext>>] {
        &self.steps
    }
    /// Using the token up: what was set stays set, and whoever could not finish may try again with the same link.
    fn pivot_index(&self) -> usize {
        2
    }
    fn context(&self, run: &Execution) -> Result<PasswordContext, StepError> {
        Ok(PasswordContext { stores: self.stores.clone(), admins: self.admins.clone(), request: run.request()? })
    }
}

pub(super) struct PasswordContext {
    stores: OperationContext,
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
impl SagaStep<PasswordContext> for Password {
    fn name(&self) -> &'static str {
        match self {
            Self::Claim => link::CLAIM,
            Self::Set => "password.set",
            Self::Use => link::USE,
            Self::Forget => "secrets.forget",
        }
    }
    fn shares_intent_with_previous(&self) -> bool {
        matches!(self, Self::Forget)
    }
    async fn run(&self, run: &Execution, context: &mut PasswordContext) -> Result<Value, StepError> {
        match self {
            Self::Claim => {
                context.only_active().await?;
                link::claim(run, &context.stores).await
            }
            Self::Set => context.set(run).await.map(|()| Value::Null),
            Self::Use => link::use_up(run, &context.stores).await,
            Self::Forget => context.forget(run).await.map(|()| Value::Null),
        }
    }
    async fn undo(&self, run: &Execution, context: &mut PasswordContext) -> Result<(), StepError> {
        match self {
            Self::Claim => {
                context.forget(run).await?;
                link::unclaim(run, &context.stores).await
            }
            Self::Set => context.end_sessions(run).await,
            Self::Use | Self::Forget => Ok(()),
        }
    }
}

impl PasswordContext {
    async fn only_active(&self) -> Result<(), StepError> {
        let found = self.stores.registry.find(self.request.tenant.into()).await?;
        match found.ok_or_else(|| StepError::fail(SetupLinkError::NotValid))? {
            tenant if tenant.status() == TenantStatus::Active => Ok(()),
            tenant => Err(StepError::fail(SetupLinkError::Refused(tenant))),
        }
    }

    async fn set(&self, run: &Execution) -> Result<(), StepError> {
        let password = match self.stores.vault.open(&secret(self.request.tenant, run.operation())).await {
            Err(VaultError::Missing(_)) => return Err(StepError::fail("its worker died before the password was kept")),
            opened => opened?,
        };
        let email = self.request.email.parse().map_err(StepError::fail)?;
        let mut session = self.connect(run).await?;
        // A worker whose time is over sets nothing any more: the next one ends what it has open, and what it opens later
        // stops here. Else it could overwrite, much later, what another link has set.
        run.check().await?;
        if !run.is_first() {
            terminate::terminate_worker_sessions(&mut session, &format!("tenantry/{}/", run.operation())).await?;
        }
        let set = self.admins.set_password(&mut session, &email, &password).await;
        let _ = session.close().await;
        Ok(set?)
    }

    /// Ends what this operation's workers have open in the tenant's database. The link is good again after this, and a
    /// worker that is only slow must not overwrite what the next post sets. A tenant that is not active has no sessions.
    async fn end_sessions(&self, run: &Execution) -> Result<(), StepError> {
        let found = self.stores.registry.find(self.request.tenant.into()).await?;
        if !found.is_some_and(|tenant| tenant.status() == TenantStatus::Active) {
            return Ok(());
        }
        let mut session = self.connect(run).await?;
        let ended = terminate::terminate_worker_sessions(&mut session, &format!("tenantry/{}/", run.operation())).await;
        let _ = session.close().await;
        Ok(ended?)
    }

    /// As the application. A rotation may have replaced the login at this moment: then it is read again.
    async fn connect(&self, run: &Execution) -> Result<PgConnection, StepError> {
        let none = || StepError::fail("the tenant has no directory entry");
        let entry = self.stores.registry.primary(self.request.tenant).await?.ok_or_else(none)?;
        let entry = self.stores.locate(entry).await?.map_err(StepError::fail)?;
        let login = self.stores.vault.open(&entry.credential).await;
        let login = login.map_err(|e| match e {
            VaultError::Missing(_) => StepError::retry(e),
            e => e.into(),
        })?;
        let options = connect::options(&entry, &login).application_name(&application_name(run));
        match tokio::time::timeout(CONNECT, crate::rt::poll_batched(options.connect())).await {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(error)) if crate::sqlstate::is_refused_login(&error) => Err(StepError::retry(error)),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(ClusterError::Deadline { phase: "connecting", limit: CONNECT }.into()),
        }
    }

    async fn forget(&self, run: &Execution) -> Result<(), StepError> {
        Ok(self.stores.vault.forget(&secret(self.request.tenant, run.operation()), run.fencing_token()).await?)
    }
}
