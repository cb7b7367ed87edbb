//! The steps of the lifecycle operations that write to the landlord.
//!
//! The sagas in `saga.rs` list them. Each write carries the worker's fencing token, so a worker that was replaced
//! cannot write any more, and each step finds its work done if it runs again.
use crate::error::{ChangeError, StepError, StoreError};
use crate::operation::{Lane, OperationStatus};
use crate::operations::lifecycle::answers::FORGET;
use crate::operations::lifecycle::context::LifecycleContext;
use crate::operations::lifecycle::{Request, Verb, verify_landlord};
use crate::saga::{Execution, SagaStep};
use crate::tenant::{Tenant, TenantStatus};
use async_trait::async_trait;
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::datetime;

/// The deadline of an archive whose `keep_for` exceeds the range of timestamps.
const LATEST_DEADLINE: OffsetDateTime = datetime!(9999-12-31 23:59:59 UTC);

/// Checks again that the tenant's status and deadline allow the operation. The call checked them before the operation
/// had its lane, and another preempting operation may have ended in between; now that the operation has the lane, no
/// other one can begin. The deadline is compared with the begin of the operation, so that all its workers decide alike.
/// A status that an earlier worker of this operation has already set passes the check.
pub(in crate::operations::lifecycle) struct CheckStatus;
#[async_trait]
impl SagaStep<LifecycleContext> for CheckStatus {
    fn name(&self) -> &'static str {
        "status.check"
    }
    fn shares_intent_with_previous(&self) -> bool {
        false
    }
    async fn run(&self, run: &Execution, context: &mut LifecycleContext) -> Result<Value, StepError> {
        let (verb, tenant) = (run.request::<Request>()?.verb, context.tenant().await?);
        if !run.is_first() && verb.has_reached(tenant.status()) {
            return Ok(Value::Null);
        }
        verb.check(&tenant, Some(run.record().begun_at)).map_err(StepError::fail)?;
        match verify_landlord(verb, &context.stores, &tenant).await {
            Err(ChangeError::Landlord(error)) => Err(error.into()),
            verified => verified.map(|()| Value::Null).map_err(StepError::fail),
        }
    }
    async fn undo(&self, _: &Execution, _: &mut LifecycleContext) -> Result<(), StepError> {
        Ok(())
    }
}

/// Parks the tenant's open operation in the change lane, and raises the epoch in all stores so that its worker can no
/// longer write.
pub(in crate::operations::lifecycle) struct ParkChange;
#[async_trait]
impl SagaStep<LifecycleContext> for ParkChange {
    fn name(&self) -> &'static str {
        "change.park"
    }
    fn shares_intent_with_previous(&self) -> bool {
        false
    }
    async fn run(&self, run: &Execution, context: &mut LifecycleContext) -> Result<Value, StepError> {
        let parked = run.journal().park_change(run.subject(), run.fencing_token()).await?;
        if let Some(parked) = &parked {
            context.stores.fence(parked.fencing_token()).await?;
        }
        serde_json::to_value(parked.map(|p| p.id)).map_err(StepError::fail)
    }
    async fn undo(&self, run: &Execution, context: &mut LifecycleContext) -> Result<(), StepError> {
        ResumeChange.run(run, context).await.map(drop)
    }
}

/// Sets the tenant's status by compare-and-set.
pub(in crate::operations::lifecycle) struct SetStatus(pub(in crate::operations::lifecycle) TenantStatus);
#[async_trait]
impl SagaStep<LifecycleContext> for SetStatus {
    fn name(&self) -> &'static str {
        match self.0 {
            TenantStatus::Purging => "tenant.purging",
            TenantStatus::Deleted => "tenant.delete",
            TenantStatus::Suspended => "tenant.suspend",
            TenantStatus::Archived => "tenant.archive",
            _ => "tenant.activate",
        }
    }
    fn shares_intent_with_previous(&self) -> bool {
        self.0 != TenantStatus::Purging
    }
    async fn run(&self, run: &Execution, context: &mut LifecycleContext) -> Result<Value, StepError> {
        let tenant = context.tenant().await?;
        if tenant.status() != self.0 {
            let next = tenant.clone().with_status(self.0).with_kept_until(self.deadline(run, &tenant)?);
            let updated = context.stores.registry.update(&tenant, &next, Some(run.fencing_token())).await;
            // Another writer has changed the row, by a rename for example. A retry reads it again.
            updated.map_err(|e| match e {
                StoreError::Conflict(_) => StepError::retry(e),
                e => e.into(),
            })?;
        }
        Ok(Value::Null)
    }
}

impl SetStatus {
    /// The deadline to store with the new status. It counts from the begin of the operation, so that every worker
    /// computes the same one.
    fn deadline(&self, run: &Execution, tenant: &Tenant) -> Result<Option<OffsetDateTime>, StepError> {
        Ok(match self.0 {
            TenantStatus::Archived => match run.request::<Request>()?.verb {
                Verb::Archive { keep_for } => {
                    // A `keep_for` beyond the range of timestamps becomes the latest possible deadline.
                    let duration = i64::try_from(keep_for).map_or(time::Duration::MAX, time::Duration::seconds);
                    Some(run.record().begun_at.checked_add(duration).unwrap_or(LATEST_DEADLINE))
                }
                _ => None,
            },
            TenantStatus::Purging | TenantStatus::Deleted => tenant.kept_until(),
            _ => None,
        })
    }
}

/// Resumes the operation that [`ParkChange`] has parked: forward, or backward if it was being undone.
pub(in crate::operations::lifecycle) struct ResumeChange;
#[async_trait]
impl SagaStep<LifecycleContext> for ResumeChange {
    fn name(&self) -> &'static str {
        "change.resume"
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, _: &mut LifecycleContext) -> Result<Value, StepError> {
        let history = run.journal().history(run.subject()).await?;
        let parked = |r: &&crate::store::journal::Record| r.lane == Lane::Change && r.status == OperationStatus::Parked;
        if let Some(record) = history.iter().find(parked) {
            run.continue_parked(record).await?;
        }
        Ok(Value::Null)
    }
}

/// Deletes every secret and every token of the tenant.
pub(in crate::operations::lifecycle) struct ForgetSecrets;
#[async_trait]
impl SagaStep<LifecycleContext> for ForgetSecrets {
    fn name(&self) -> &'static str {
        FORGET
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut LifecycleContext) -> Result<Value, StepError> {
        context.stores.tokens.forget_tenant(context.tenant, run.fencing_token()).await?;
        let (_, keys) = context.stores.vault.forget_tenant(context.tenant, run.fencing_token()).await?;
        serde_json::to_value(keys).map_err(StepError::fail)
    }
}

/// Releases the tenant's placement on its server, which frees its database name and its capacity there.
pub(in crate::operations::lifecycle) struct ReleasePlacement;
#[async_trait]
impl SagaStep<LifecycleContext> for ReleasePlacement {
    fn name(&self) -> &'static str {
        "server.release"
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut LifecycleContext) -> Result<Value, StepError> {
        context.stores.servers.release(context.tenant, run.fencing_token()).await?;
        Ok(Value::Null)
    }
}

/// Ends the parked operation of the change lane for good: a purged tenant has nothing that it could continue with.
pub(in crate::operations::lifecycle) struct AbandonChange;
#[async_trait]
impl SagaStep<LifecycleContext> for AbandonChange {
    fn name(&self) -> &'static str {
        "change.abandon"
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, _: &mut LifecycleContext) -> Result<Value, StepError> {
        run.journal().abandon_change(run.subject(), run.fencing_token()).await?;
        Ok(Value::Null)
    }
}
