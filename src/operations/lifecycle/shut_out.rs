//! The result of a suspension or an archive.
//!
//! The facade asks for it when the operation has ended, and also as soon as the step that ends sessions has run,
//! because the call returns then even if sessions are left. Both answers are read from the outputs that the journal
//! stores.
use super::Lifecycle;
use super::answers::{CLOSE, END_SESSIONS, REFUSE, SessionsLeft, VERIFY_EMPTY};
use crate::cluster::{Closed, require_done};
use crate::error::{ChangeError, ClusterError};
use crate::operation::OperationId;
use crate::saga::Outcome;
use crate::store::journal::Record;
use crate::tenant::{Tenant, TenantId};

/// How far a tenant is closed when [`suspend`](crate::Tenantry::suspend) or [`archive`](crate::Tenantry::archive)
/// returns. Each state was read back from the server after the logins had been refused.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ShutOut {
    /// No role can enter the tenant's database, and none of its sessions is left.
    #[non_exhaustive]
    Complete {
        /// The tenant, suspended or archived.
        tenant: Tenant,
        /// Superusers of the server that can still enter a suspended tenant's database, because PostgreSQL does not
        /// check rights for them. An archived database is closed to superusers too, so the list is then empty.
        superusers: Vec<String>,
        /// Roles of the tenant whose comment had been changed outside tenantry. The comment was restored; the change
        /// had no other effect.
        restored_comments: Vec<String>,
    },
    /// No role can enter the tenant's database and every session was signalled to terminate, but some have not ended
    /// within a second: PostgreSQL ends a session only where its statement allows it. The operation continues until
    /// none is left; see [`Operations::events`](crate::facade::Operations::events).
    #[non_exhaustive]
    Closing {
        /// The tenant, suspended or archived.
        tenant: Tenant,
        /// The operation, which continues.
        operation: OperationId,
        /// Sessions that were left when the call returned.
        sessions: u32,
    },
}

impl ShutOut {
    /// The tenant, suspended or archived.
    pub fn tenant(&self) -> &Tenant {
        match self {
            Self::Complete { tenant, .. } | Self::Closing { tenant, .. } => tenant,
        }
    }
    /// Whether no session of the tenant is left.
    pub fn is_complete(&self) -> bool {
        matches!(self, Self::Complete { .. })
    }
}

impl Lifecycle {
    /// Converts the outcome of a suspension or an archive to the result that the caller gets.
    pub(crate) async fn read_shut_out(&self, outcome: Outcome) -> Result<ShutOut, ChangeError> {
        if let Some(sessions) = sessions_waited_for(&outcome) {
            return self.closing_result(&outcome.record, sessions).await;
        }
        let record = require_done(outcome)?;
        let read_closed =
            |step| record.outputs.get(step).and_then(|v| serde_json::from_value::<Closed>(v.clone()).ok());
        let first = [REFUSE, CLOSE].into_iter().find_map(read_closed).unwrap_or_default();
        let last = read_closed(VERIFY_EMPTY).unwrap_or_default();
        let restored_comments = first.restored.into_iter().chain(last.restored).collect();
        let tenant = self.find_tenant(&record).await?;
        Ok(ShutOut::Complete { tenant, superusers: last.superusers, restored_comments })
    }

    /// The interim result of an operation that has run `EndSessions`: `Closing` if sessions are left, else `None`.
    pub(crate) async fn read_closing(&self, id: OperationId) -> Result<Option<ShutOut>, ChangeError> {
        let record = self.stores.journal.read(id).await?.ok_or(ChangeError::Unknown)?;
        match read_sessions_left(&record) {
            Some(sessions) if !record.status.is_over() => self.closing_result(&record, sessions).await.map(Some),
            _ => Ok(None),
        }
    }

    async fn closing_result(&self, record: &Record, sessions: u32) -> Result<ShutOut, ChangeError> {
        Ok(ShutOut::Closing { tenant: self.find_tenant(record).await?, operation: record.id, sessions })
    }

    async fn find_tenant(&self, record: &Record) -> Result<Tenant, ChangeError> {
        let id: TenantId = record.subject.tenant().ok_or(ChangeError::Unknown)?;
        self.stores.registry.find(id.into()).await?.ok_or(ChangeError::Unknown)
    }
}

/// How many sessions an operation waits for, if it waits for nothing else.
fn sessions_waited_for(outcome: &Outcome) -> Option<u32> {
    let cause = outcome.failure.as_ref().map(|f| f.cause.downcast_ref::<ClusterError>());
    let only_sessions = cause.is_none_or(|c| matches!(c, Some(ClusterError::InUse { .. })));
    let waits = !outcome.record.status.is_over() && outcome.record.step == VERIFY_EMPTY;
    if waits && only_sessions { read_sessions_left(&outcome.record) } else { None }
}

/// The stored output of `EndSessions`; `None` if no session was left or the step has not run.
fn read_sessions_left(record: &Record) -> Option<u32> {
    let output: SessionsLeft = serde_json::from_value(record.outputs.get(END_SESSIONS)?.clone()).ok()?;
    (output.left > 0).then_some(output.left)
}
