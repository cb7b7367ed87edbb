//! The repairs of a server.
use super::answers::Applied;
use super::context::RepairContext;
use crate::cluster::pg::terminate::SameSession;
use crate::doctor::action::Repair;
use crate::error::StepError;
use crate::saga::Execution;

/// Acts.
pub(super) async fn apply(run: &Execution, context: &mut RepairContext) -> Result<Applied, StepError> {
    let repair = context.repair()?;
    let locked = context.server_session(run).await?;
    match repair {
        Repair::CloseMaintenance => locked.close_maintenance().await?,
        Repair::EndSession { pid, started_at, transaction_at } => {
            locked.end_session(&SameSession { pid, started_at, transaction_at }).await?;
        }
        other => return Err(StepError::fail(format!("a server has no such repair: {other}"))),
    }
    Ok(Applied::default())
}
