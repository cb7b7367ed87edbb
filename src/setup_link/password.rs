//! The saga of a password link: claims the token, connects to the tenant's database and sets the admin's password.
//!
//! [`SetupLinks::begin_password`](super::SetupLinks) seals the posted password and begins it.
//!
//! Invariants:
//! - Every worker of an operation sets the same password: the one that is sealed under the operation's id.
//! - The sealed password is deleted when the operation ends, whether it succeeds or is undone.
//! - A password is hashed before a session is open, and a session is opened only under a worker permit of the server.
//! - A worker that has lost its lease does not overwrite a password that another link has set since.
use super::session::connect_as_application;
use super::{Request, SetupLinkError, link};
use crate::cluster::pg::terminate;
use crate::cluster::{OperationContext, application_name};
use crate::error::{StepError, VaultError};
use crate::operation::{Lane, OperationId};
use crate::saga::{Execution, Saga, SagaStep};
use crate::secret::CredentialId;
use crate::store::admin::AdminStore;
use crate::store::registry::TenantRegistry;
use crate::tenant::{TenantId, TenantStatus};
use async_trait::async_trait;
use secrecy::SecretString;
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Id in the vault under which the new password is sealed until it is set.
pub(super) fn new_password_id(tenant: TenantId, operation: OperationId) -> CredentialId {
    CredentialId::new_password(tenant, operation)
}

/// The saga of a password link. Its pivot step uses the token up. An operation that fails before that is undone: a
/// password that it has set stays set, and the user can try again with the same link.
pub(super) fn define(stores: OperationContext, admins: Arc<dyn AdminStore>) -> Saga<PasswordContext> {
    let new_context = move |run: &Execution| {
        Ok(PasswordContext { stores: stores.clone(), admins: admins.clone(), request: run.request()?, hash: None })
    };
    Saga::new("setup_password", Lane::Change, new_context)
        .step(PasswordStep::Claim)
        .step(PasswordStep::Set)
        .pivot(PasswordStep::Use)
        .step(PasswordStep::Forget)
}

/// One worker's view of the operation.
pub(super) struct PasswordContext {
    stores: OperationContext,
    admins: Arc<dyn AdminStore>,
    request: Request,
    /// The hash of the new password, if the admin store has hashed it already.
    hash: Option<SecretString>,
}

/// The steps.
enum PasswordStep {
    Claim,
    Set,
    Use,
    Forget,
}

#[async_trait]
impl SagaStep<PasswordContext> for PasswordStep {
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
                context.require_active().await?;
                context.hash_password(run).await?;
                link::claim(run, &context.stores).await
            }
            Self::Set => context.set_password(run).await.map(|()| Value::Null),
            Self::Use => link::use_up(run, &context.stores).await,
            Self::Forget => context.forget_password(run).await.map(|()| Value::Null),
        }
    }
    async fn undo(&self, run: &Execution, context: &mut PasswordContext) -> Result<(), StepError> {
        match self {
            Self::Claim => {
                context.forget_password(run).await?;
                link::unclaim(run, &context.stores).await
            }
            Self::Set => context.end_sessions(run).await,
            Self::Use | Self::Forget => Ok(()),
        }
    }
}

impl PasswordContext {
    async fn require_active(&self) -> Result<(), StepError> {
        let found = self.stores.registry.find(self.request.tenant.into()).await?;
        match found.ok_or_else(|| StepError::fail(SetupLinkError::NotValid))? {
            tenant if tenant.status() == TenantStatus::Active => Ok(()),
            tenant => Err(StepError::fail(SetupLinkError::Refused(tenant))),
        }
    }

    async fn open_password(&self, run: &Execution) -> Result<SecretString, StepError> {
        match self.stores.vault.open(&new_password_id(self.request.tenant, run.operation())).await {
            Err(VaultError::Missing(_)) => {
                Err(StepError::fail("the worker died before it sealed the new password; post it again"))
            }
            opened => Ok(opened?),
        }
    }

    /// Hashes the sealed password, if the admin store can do that without a session and this worker has not done it. A
    /// password that breaks a rule fails here.
    async fn hash_password(&mut self, run: &Execution) -> Result<(), StepError> {
        if let (Some(store), None) = (self.admins.hash_first(), &self.hash) {
            self.hash = Some(store.hash(&self.open_password(run).await?).await?);
        }
        Ok(())
    }

    async fn set_password(&mut self, run: &Execution) -> Result<(), StepError> {
        self.hash_password(run).await?;
        let email = self.request.email.parse().map_err(StepError::fail)?;
        let (mut session, _permit) = self.connect(run).await?;
        // A slow worker that has lost its lease could set this password much later, and overwrite one that another link
        // has set since. The check refuses such a worker. It can lose its lease right after the check, so the worker
        // that has taken over also ends the older worker's sessions.
        run.check().await?;
        if !run.is_first() {
            terminate::terminate_worker_sessions(&mut session, &format!("tenantry/{}/", run.operation())).await?;
        }
        let set = match (self.admins.hash_first(), &self.hash) {
            (Some(store), Some(hash)) => store.set_hash(&mut session, &email, hash).await,
            _ => self.admins.set_password(&mut session, &email, &self.open_password(run).await?).await,
        };
        let _ = session.close().await;
        Ok(set?)
    }

    /// Ends the sessions that this operation's workers have in the tenant's database. The link is valid again after the
    /// undo, and a slow worker must not overwrite the password of the next POST. If the tenant is not active, there is
    /// nothing to do: the operation that closed the tenant terminates its sessions.
    async fn end_sessions(&self, run: &Execution) -> Result<(), StepError> {
        let found = self.stores.registry.find(self.request.tenant.into()).await?;
        if !found.is_some_and(|tenant| tenant.status() == TenantStatus::Active) {
            return Ok(());
        }
        let (mut session, _permit) = self.connect(run).await?;
        let terminated =
            terminate::terminate_worker_sessions(&mut session, &format!("tenantry/{}/", run.operation())).await;
        let _ = session.close().await;
        Ok(terminated?)
    }

    /// See [`connect_as_application`].
    async fn connect(&self, run: &Execution) -> Result<(PgConnection, OwnedSemaphorePermit), StepError> {
        connect_as_application(&self.stores, self.request.tenant, &application_name(run)).await
    }

    async fn forget_password(&self, run: &Execution) -> Result<(), StepError> {
        let id = new_password_id(self.request.tenant, run.operation());
        Ok(self.stores.vault.forget(&id, run.fencing_token()).await?)
    }
}
