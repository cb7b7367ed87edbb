//! The steps of a repair: examine, act, examine again.
//!
//! A worker that has died after the intent of [`RepairStep::Apply`] is followed by one that repeats that step, so every
//! action looks at the present state first and may be repeated.
use super::answers::{APPLY, Applied, VERIFY, Verified};
use super::context::RepairContext;
use super::{Refused, landlord, server, tenant};
use crate::doctor::finding::Finding;
use crate::error::StepError;
use crate::operation::Subject;
use crate::saga::{Execution, SagaStep};
use async_trait::async_trait;
use serde_json::{Value, json};

/// A step of a repair, in the order in which they run.
pub(super) enum RepairStep {
    /// Takes the lock of the subject, examines it again, and stores the state before.
    Check,
    /// Acts.
    Apply,
    /// Examines the subject once more.
    Verify,
}

#[async_trait]
impl SagaStep<RepairContext> for RepairStep {
    fn name(&self) -> &'static str {
        match self {
            Self::Check => "finding.check",
            Self::Apply => APPLY,
            Self::Verify => VERIFY,
        }
    }
    /// Acting has an intent of its own: the record of that intent also holds the state before, so that is on disk before
    /// anything is changed.
    fn shares_intent_with_previous(&self) -> bool {
        matches!(self, Self::Verify)
    }
    async fn run(&self, run: &Execution, context: &mut RepairContext) -> Result<Value, StepError> {
        match self {
            Self::Check => check(run, context).await,
            Self::Apply => serde_json::to_value(apply(run, context).await?).map_err(StepError::fail),
            Self::Verify => verify(run, context).await,
        }
    }
    async fn undo(&self, _: &Execution, _: &mut RepairContext) -> Result<(), StepError> {
        Ok(())
    }
}

async fn check(run: &Execution, context: &mut RepairContext) -> Result<Value, StepError> {
    context.take_lock(run).await?;
    let found = examine(run, context).await?;
    let finding = super::compare(&found, &context.finding).map_err(to_step_error)?;
    Ok(json!({ "before": finding.evidence }))
}

async fn apply(run: &Execution, context: &mut RepairContext) -> Result<Applied, StepError> {
    match run.subject() {
        Subject::Tenant(_) => tenant::apply(run, context).await,
        Subject::Server(_) => server::apply(run, context).await,
        Subject::Landlord => landlord::apply(context).await,
        Subject::Vault | Subject::Link(_) => Err(StepError::fail("this subject has no repair of this kind")),
    }
}

async fn verify(run: &Execution, context: &mut RepairContext) -> Result<Value, StepError> {
    let found = examine(run, context).await?;
    let gone = !found.iter().any(|finding| finding.is_about(&context.finding));
    if gone && found.iter().any(|finding| finding.may_hide(context.finding.code)) {
        return Err(to_step_error(Refused::Unseen));
    }
    serde_json::to_value(Verified { gone }).map_err(StepError::fail)
}

/// What was not seen now may be seen at the next attempt.
fn to_step_error(refused: Refused) -> StepError {
    match refused {
        Refused::Unseen => StepError::retry(refused),
        refused => StepError::fail(refused),
    }
}

async fn examine(run: &Execution, context: &RepairContext) -> Result<Vec<Finding>, StepError> {
    context.tools.examiner.examine_subject(run.subject(), Some(run.operation())).await
}
