//! The steps of a relocation, in the order in which they run.
use super::context::RelocateContext;
use crate::error::StepError;
use crate::operation::{Lane, OperationStatus};
use crate::saga::{Execution, SagaStep};
use async_trait::async_trait;
use serde_json::Value;

/// The stored name of the step that changes the row.
pub(super) const MOVE: &str = "server.move";

/// A step of a relocation.
#[derive(Clone, Copy)]
pub(super) enum RelocateStep {
    /// Parks an open change of the server and raises the epoch in all stores, so that its worker can no longer write.
    Park,
    /// Checks both addresses and changes the row to the new one. Both are one step, so that a worker never relies on a
    /// check that an earlier worker made.
    Move,
    /// Resumes the parked change, which continues at the new address.
    Resume,
}

#[async_trait]
impl SagaStep<RelocateContext> for RelocateStep {
    fn name(&self) -> &'static str {
        match self {
            Self::Park => "change.park",
            Self::Move => MOVE,
            Self::Resume => "change.resume",
        }
    }
    fn shares_intent_with_previous(&self) -> bool {
        matches!(self, Self::Move)
    }
    async fn run(&self, run: &Execution, context: &mut RelocateContext) -> Result<Value, StepError> {
        match self {
            Self::Park => context.park(run).await?,
            Self::Move => return context.relocate(run).await.map(Value::Bool),
            Self::Resume => resume(run).await?,
        }
        Ok(Value::Null)
    }
    async fn undo(&self, run: &Execution, context: &mut RelocateContext) -> Result<(), StepError> {
        match self {
            Self::Park => resume(run).await,
            Self::Move => context.restore_row(run).await,
            Self::Resume => Ok(()),
        }
    }
}

/// Resumes the parked operation in the server's change lane, if there is one.
async fn resume(run: &Execution) -> Result<(), StepError> {
    let history = run.journal().history(run.subject()).await?;
    let parked = history.iter().find(|r| r.lane == Lane::Change && r.status == OperationStatus::Parked);
    if let Some(record) = parked {
        run.continue_parked(record).await?;
    }
    Ok(())
}
