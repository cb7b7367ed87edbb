//! Follow-up work of a provisioning: the delivery of its setup link and the application's steps after activation.
//!
//! It is an operation of its own, because its failure must not hold back anything else: the tenant is active and can be
//! migrated, rotated, suspended or purged while a mail server refuses the link. The last step of the provisioning begins
//! it, and the worker of the provisioning then drives it. If it fails, recovery or an administrator continues it.
//!
//! Invariants:
//! - It has no lane, and no other operation waits for it. Its id is a function of the provisioning's, so it exists once.
//! - It has nothing to undo. Its first step is the pivot step.
//! - Steps run only while the tenant is active. For a suspended or archived tenant they wait, and for a purged one there
//!   is nothing to do.
use super::ProvisionConfig;
use super::request::Request;
use super::steps::{DeliverLink, FollowUpStep};
use crate::cluster::{LoginTarget, OperationContext};
use crate::error::{StepError, StoreError};
use crate::operation::{Lane, OperationId};
use crate::operations::step::{Connect, StepContext};
use crate::saga::{Execution, Saga};
use crate::store::journal::{Intent, Record};
use crate::tenant::{Tenant, TenantId, TenantStatus};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use std::{borrow::Cow, sync::Arc};

/// The stored kind of these operations.
const KIND: &str = "follow_up";

/// The saga of the follow-up work.
pub(super) fn define(stores: OperationContext, config: Arc<ProvisionConfig>) -> Saga<FollowUpContext> {
    let after: Vec<_> = config.after.iter().cloned().map(FollowUpStep).collect();
    let new_context = move |run: &_| FollowUpContext::new(stores.clone(), config.clone(), run);
    Saga::new(KIND, Lane::FollowUp, new_context).pivot(DeliverLink).steps(after)
}

/// The intent of the follow-up work of the provisioning `run`. Its lease has ended, so any worker can claim it.
pub(super) fn intent(run: &Execution, config: &ProvisionConfig) -> Result<Intent, StepError> {
    let id = run.operation().follow_up();
    let request = FollowUpRequest { provisioning: run.operation() };
    Ok(Intent {
        reason: run.record().reason.clone(),
        request: serde_json::to_value(request).map_err(StepError::fail)?,
        intended: 1,
        total: 1 + config.after.len() as u32,
        ..Intent::new(id, Cow::Borrowed(KIND), Lane::FollowUp, run.subject().clone())
    })
}

/// The request as the journal stores it.
#[derive(Serialize, Deserialize)]
struct FollowUpRequest {
    /// The operation that created the tenant. Its request has the input of the application's steps, and its outputs
    /// have what they returned.
    provisioning: OperationId,
}

/// State of one worker of the follow-up work.
pub(crate) struct FollowUpContext {
    pub(super) stores: OperationContext,
    pub(super) config: Arc<ProvisionConfig>,
    pub(super) tenant: TenantId,
    pub(super) provisioning: OperationId,
    record: Option<Record>,
}

impl FollowUpContext {
    fn new(stores: OperationContext, config: Arc<ProvisionConfig>, run: &Execution) -> Result<Self, StepError> {
        let no_tenant = || StepError::fail("the subject of the follow-up work is not a tenant");
        let tenant = run.subject().tenant().ok_or_else(no_tenant)?;
        let FollowUpRequest { provisioning } = run.request()?;
        Ok(Self { stores, config, tenant, provisioning, record: None })
    }

    /// The tenant, if it is active. `None` if it was purged, so that there is nothing left to do for it.
    ///
    /// # Errors
    /// A retry while the tenant is suspended or archived.
    pub(super) async fn active_tenant(&self) -> Result<Option<Tenant>, StepError> {
        let Some(tenant) = self.stores.registry.find(self.tenant.into()).await? else { return Ok(None) };
        match tenant.status() {
            TenantStatus::Active => Ok(Some(tenant)),
            TenantStatus::Purging | TenantStatus::Deleted => Ok(None),
            status => Err(StepError::retry(NotActive(status))),
        }
    }

    /// The record of the provisioning, read once per worker.
    async fn provisioning_record(&mut self) -> Result<&Record, StepError> {
        if self.record.is_none() {
            self.record = self.stores.journal.read(self.provisioning).await?;
        }
        let missing = || StoreError::conflict(format!("operation {} is not in the journal", self.provisioning));
        Ok(self.record.as_ref().ok_or_else(missing)?)
    }

    /// The output of a step that the provisioning itself has completed, as versions before follow-up work did.
    pub(super) async fn earlier_output(&mut self, step: &str) -> Result<Option<Value>, StepError> {
        Ok(self.provisioning_record().await?.outputs.get(step).cloned())
    }

    /// The context for a step of the application. Its operation and its idempotency key are those of the provisioning.
    pub(super) async fn step_context(
        &mut self, run: &Execution, tenant: Tenant, step: &'static str,
    ) -> Result<StepContext, StepError> {
        let connect = AppLogin { run: run.clone(), stores: self.stores.clone(), tenant: self.tenant };
        let provisioning = self.provisioning;
        let record = self.provisioning_record().await?;
        let request: Request = serde_json::from_value(record.request.clone()).map_err(StepError::fail)?;
        let mut outputs = record.outputs.clone();
        outputs.extend(run.record().outputs.clone());
        Ok(StepContext::new(tenant, provisioning, step, request.input, outputs, Some(Arc::new(connect))))
    }
}

/// The tenant's status does not allow the work yet.
#[derive(Debug, thiserror::Error)]
#[error("the tenant is {0}; follow-up work waits until it is active")]
struct NotActive(TenantStatus);

/// The application's current login. A rotation may replace it while follow-up work is open, so it is read from the
/// registry for each connection.
struct AppLogin {
    run: Execution,
    stores: OperationContext,
    tenant: TenantId,
}

impl AppLogin {
    async fn target(&self) -> Result<LoginTarget, StepError> {
        let none = || StepError::fail("the tenant has no primary database entry");
        let location = self.stores.find_location(self.tenant).await?.ok_or_else(none)?;
        let entry = self.stores.registry.primary(self.tenant).await?.ok_or_else(none)?;
        let password = self.stores.vault.open(&entry.credential).await?;
        Ok(location.server.login_target(&entry.database, &entry.login, password))
    }
}

#[async_trait]
impl Connect for AppLogin {
    async fn as_migrator(&self) -> Result<PgConnection, StepError> {
        Err(StepError::fail("the migrator login does not exist after activation; use connect()"))
    }
    async fn as_app(&self) -> Result<PgConnection, StepError> {
        self.target().await?.open(&self.run).await
    }
}
