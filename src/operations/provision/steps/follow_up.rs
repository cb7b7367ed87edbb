//! The step of a provisioning that begins its follow-up work, and the steps of that work.
//!
//! The sagas in `saga.rs` and `follow_up.rs` list them. Each step of the follow-up work first looks at the tenant, which
//! other operations may have changed, and runs only while it is active.
use super::link::find_undelivered;
use crate::error::StepError;
use crate::operations::provision::context::ProvisionContext;
use crate::operations::provision::follow_up::{self, FollowUpContext};
use crate::operations::step::AnyStep;
use crate::saga::{Execution, SagaStep};
use crate::secret::CredentialId;
use crate::store::journal::FOLLOW_UP;
use async_trait::async_trait;
use serde_json::{Value, json};
use std::sync::Arc;

/// Commits the intent of the follow-up work, if there is any. The id of that operation is a function of this one's, and
/// the journal accepts it only from the newest worker. So a crash neither loses the work nor doubles it.
pub(in crate::operations::provision) struct BeginFollowUp;
#[async_trait]
impl SagaStep<ProvisionContext> for BeginFollowUp {
    fn name(&self) -> &'static str {
        "follow_up.begin"
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    fn landlord_only(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut ProvisionContext) -> Result<Value, StepError> {
        let has_link = context.config.delivery.is_some() && context.request.admin.is_some();
        if !has_link && context.config.after.is_empty() {
            return Ok(Value::Null);
        }
        let intent = follow_up::intent(run, &context.config)?;
        let begun = run.journal().begin_follow_up(&intent, run.fencing_token()).await?;
        Ok(json!({ FOLLOW_UP: begun.id }))
    }
}

/// Passes the link to the application's `LinkDelivery`, if there is one. If that returns `Ok`, the delivery is
/// confirmed and the bytes of the link are deleted. After a crash in between, the same link is delivered again.
pub(in crate::operations::provision) struct DeliverLink;
#[async_trait]
impl SagaStep<FollowUpContext> for DeliverLink {
    fn name(&self) -> &'static str {
        "link.deliver"
    }
    fn shares_intent_with_previous(&self) -> bool {
        false
    }
    fn is_skippable(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut FollowUpContext) -> Result<Value, StepError> {
        let Some(delivery) = context.config.delivery.clone() else { return Ok(Value::Null) };
        let Some(tenant) = context.active_tenant().await? else { return Ok(Value::Null) };
        let (stores, provisioning) = (&context.stores, context.provisioning);
        // `None`: delivered by an earlier worker, revoked, used or expired.
        let Some(link) = find_undelivered(stores, context.tenant, provisioning).await? else { return Ok(Value::Null) };
        delivery.deliver(&tenant, &link).await?;
        stores.tokens.mark_delivered(link.id).await?;
        stores.vault.forget(&CredentialId::setup_link(context.tenant, provisioning), run.fencing_token()).await?;
        Ok(json!({ "delivered": true }))
    }
}

/// A step of the application after activation. It has an intent of its own, because its effects may be anywhere.
pub(in crate::operations::provision) struct FollowUpStep(pub(in crate::operations::provision) Arc<dyn AnyStep>);
#[async_trait]
impl SagaStep<FollowUpContext> for FollowUpStep {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn shares_intent_with_previous(&self) -> bool {
        false
    }
    fn is_skippable(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut FollowUpContext) -> Result<Value, StepError> {
        if let Some(output) = context.earlier_output(self.0.name()).await? {
            return Ok(output);
        }
        let Some(tenant) = context.active_tenant().await? else { return Ok(Value::Null) };
        let cx = context.step_context(run, tenant, self.0.name()).await?;
        self.0.run(&cx).await
    }
}
