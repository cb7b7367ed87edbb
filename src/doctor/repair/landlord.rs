//! The repairs of the landlord. They take no lock: the lane of the operation is enough, because each ends one session.
use super::answers::Applied;
use super::context::RepairContext;
use crate::cluster::pg::terminate::SameSession;
use crate::doctor::action::Repair;
use crate::error::{StepError, StoreError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long to wait for a session that was signalled.
const LIMIT: Duration = Duration::from_secs(10);
/// Interval between two looks at it.
const POLL: Duration = Duration::from_millis(20);

/// Acts.
pub(super) async fn apply(context: &mut RepairContext) -> Result<Applied, StepError> {
    match context.repair()? {
        Repair::EndSession { pid, started_at, transaction_at } => {
            end_session(context, &SameSession { pid, started_at, transaction_at }).await?;
        }
        other => return Err(StepError::fail(format!("the landlord has no such repair: {other}"))),
    }
    Ok(Applied::default())
}

/// Terminates a session, if it is still in the same transaction, and waits until it has ended.
async fn end_session(context: &RepairContext, same: &SameSession) -> Result<(), StepError> {
    let (deadline, mut signal) = (Instant::now() + LIMIT, true);
    loop {
        if !same.find(signal).fetch_one(&context.tools.landlord).await.map_err(StoreError::from)? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(StepError::retry(format!("the session with process id {} has not ended", same.pid)));
        }
        signal = false;
        sleep(POLL).await;
    }
}
