//! Checks that no worker drives a change of a suspended tenant that is to be activated or closed again.
//!
//! A migration may run while its tenant is suspended. These operations do not park it, and would terminate the session
//! of its worker to get the tenant's lock. So they are refused until the worker has ended.
use crate::error::ChangeError;
use crate::operation::{Lane, OperationStatus, Subject};
use crate::store::journal::{Journal, Record};
use crate::tenant::TenantId;
use futures_util::future::try_join;
use time::OffsetDateTime;

/// Fails while a worker drives a change of the tenant. A change that is parked, waits for its next attempt or has lost
/// its worker does not count, so that it cannot keep the tenant suspended.
///
/// # Errors
/// [`ChangeError::Busy`] names the operation.
pub(super) async fn verify_no_running_change(journal: &dyn Journal, tenant: TenantId) -> Result<(), ChangeError> {
    let subject = Subject::Tenant(tenant);
    let (now, history) = try_join(journal.now(), journal.history(&subject)).await?;
    match history.iter().find(|record| is_driven(record, now)) {
        Some(record) => Err(ChangeError::Busy { operation: record.id, status: record.status }),
        None => Ok(()),
    }
}

fn is_driven(record: &Record, now: OffsetDateTime) -> bool {
    record.lane == Lane::Change
        && matches!(record.status, OperationStatus::Running | OperationStatus::Undoing)
        && record.retry_at.is_none()
        && record.leased_until > now
}
