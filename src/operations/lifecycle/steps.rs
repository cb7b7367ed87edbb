//! The steps that write to the landlord.
use super::answers::FORGET;
use super::context::LifecycleContext;
use super::{Request, Verb};
use crate::error::{ChangeError, StepError, StoreError};
use crate::operation::{Lane, OperationStatus};
use crate::saga::{Execution, SagaStep};
use crate::tenant::{Tenant, TenantStatus};
use async_trait::async_trait;
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::datetime;

/// The latest deadline.
const LAST: OffsetDateTime = datetime!(9999-12-31 23:59:59 UTC);

/// Whether the tenant's status and deadline still allow it: they were looked at before the lane was taken, and another
/// fence may have ended in between. From here on no other one begins. The moment that counts is the operation's begin,
/// the same for each of its workers; and what it has itself done already is no reason to refuse.
pub(super) struct Check;
#[async_trait]
impl SagaStep<LifecycleContext> for Check {
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
        if verb.shuts_out() {
            match super::entries::verify_entries(&context.stores, context.tenant).await {
                Err(ChangeError::Landlord(error)) => return Err(error.into()),
                verified => verified.map_err(StepError::fail)?,
            }
        }
        Ok(Value::Null)
    }
    async fn undo(&self, _: &Execution, _: &mut LifecycleContext) -> Result<(), StepError> {
        Ok(())
    }
}

/// Stops what the change lane is doing: its worker can write nothing any more.
pub(super) struct Park;
#[async_trait]
impl SagaStep<LifecycleContext> for Park {
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
        Resume.run(run, context).await.map(drop)
    }
}

/// The tenant's status, by compare-and-set.
pub(super) struct Become(pub(super) TenantStatus);
#[async_trait]
impl SagaStep<LifecycleContext> for Become {
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
            // Somebody renamed it in between: read it again.
            updated.map_err(|e| match e {
                StoreError::Conflict(_) => StepError::retry(e),
                e => e.into(),
            })?;
        }
        Ok(Value::Null)
    }
}

impl Become {
    /// The same for every worker of the operation.
    fn deadline(&self, run: &Execution, tenant: &Tenant) -> Result<Option<OffsetDateTime>, StepError> {
        Ok(match self.0 {
            TenantStatus::Archived => match run.request::<Request>()?.verb {
                Verb::Archive { keep_for } => {
                    // Further than any calendar: for ever, as far as anybody can tell.
                    let kept = i64::try_from(keep_for).map_or(time::Duration::MAX, time::Duration::seconds);
                    Some(run.record().begun_at.checked_add(kept).unwrap_or(LAST))
                }
                _ => None,
            },
            TenantStatus::Purging | TenantStatus::Deleted => tenant.kept_until(),
            _ => None,
        })
    }
}

/// Lets an operation that a fence stopped go on: forward, or backward if it was being undone.
pub(super) struct Resume;
#[async_trait]
impl SagaStep<LifecycleContext> for Resume {
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
            run.journal().unpark(record.id, record.failure().is_some()).await?;
        }
        Ok(Value::Null)
    }
}

/// Every secret and every token of the tenant.
pub(super) struct Forget;
#[async_trait]
impl SagaStep<LifecycleContext> for Forget {
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

/// The tenant's place on the server: its names are free again.
pub(super) struct Release;
#[async_trait]
impl SagaStep<LifecycleContext> for Release {
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

/// What the change lane was doing has nothing left to go on with.
pub(super) struct Abandon;
#[async_trait]
impl SagaStep<LifecycleContext> for Abandon {
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
