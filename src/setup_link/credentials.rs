//! The saga of a credentials link: rotates the tenant's database login, then issues a password link for the same
//! address.
//!
//! [`SetupLinks::begin_credentials`](super::SetupLinks) begins it. It uses the steps of a rotation, with the steps of a
//! link around them.
//!
//! Invariants:
//! - The password link is issued and sealed before the token is used up, so a crash never leaves a user without a link.
//! - The old login is dropped last, because no user waits for that.
use super::{Request, link};
use crate::cluster::OperationContext;
use crate::error::StepError;
use crate::operation::Lane;
use crate::operations::rotate::{AppLogin, RotateContext, RotateStep};
use crate::saga::{Execution, Saga, SagaStep};
use crate::store::tokens::TokenPurpose;
use async_trait::async_trait;
use serde_json::{Value, json};
use std::time::Duration;

/// The saga of a credentials link. Its pivot step is the flip: once the directory names the new login, the rotation is
/// not undone. `lifetime` is how long the password link is valid.
pub(super) fn define(stores: OperationContext, login: AppLogin, lifetime: Duration) -> Saga<RotateContext> {
    Saga::new("setup_credentials", Lane::Change, move |run| RotateContext::new(stores.clone(), login, run))
        .step(LinkStep::Claim)
        .step(RotateStep::Seal)
        .step(RotateStep::Create)
        .step(RotateStep::Probe)
        .pivot(RotateStep::Flip)
        .step(LinkStep::IssueNext(lifetime))
        .step(LinkStep::Use)
        .step(RotateStep::Retire)
}

/// The steps that concern links.
enum LinkStep {
    Claim,
    /// Issues the password link, valid for this long. It is sealed, so that every caller that joins gets the same link.
    IssueNext(Duration),
    Use,
}

#[async_trait]
impl SagaStep<RotateContext> for LinkStep {
    fn name(&self) -> &'static str {
        match self {
            Self::Claim => link::CLAIM,
            // The stored name of the step that issues the password link.
            Self::IssueNext(_) => "link.follow",
            Self::Use => link::USE,
        }
    }
    /// The intent of the flip also covers issuing the password link and using the token up. Both are idempotent.
    fn shares_intent_with_previous(&self) -> bool {
        !matches!(self, Self::Claim)
    }
    async fn run(&self, run: &Execution, context: &mut RotateContext) -> Result<Value, StepError> {
        match self {
            Self::Claim => link::claim(run, &context.stores).await,
            Self::IssueNext(lifetime) => {
                let Request { tenant, email, .. } = run.request()?;
                let to = (tenant, email.as_str());
                let issued = crate::operations::provision::issue_token(
                    &context.stores,
                    run,
                    to,
                    TokenPurpose::password(),
                    *lifetime,
                )
                .await?;
                Ok(json!({ "link": issued.id }))
            }
            Self::Use => link::use_up(run, &context.stores).await,
        }
    }
    async fn undo(&self, run: &Execution, context: &mut RotateContext) -> Result<(), StepError> {
        match self {
            Self::Claim => link::unclaim(run, &context.stores).await,
            _ => Ok(()),
        }
    }
}
