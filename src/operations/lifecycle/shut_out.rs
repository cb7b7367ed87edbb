//! What a suspension or an archive answers, and what keeps one from beginning.
use super::Lifecycle;
use super::answers::{CLOSE, END_SESSIONS, REFUSE, SessionsLeft, VERIFY_EMPTY};
use crate::cluster::{Closed, ended};
use crate::error::{ChangeError, ClusterError};
use crate::operation::OperationId;
use crate::saga::Outcome;
use crate::store::journal::Record;
use crate::tenant::{Tenant, TenantId};

/// How far a tenant is shut out when [`suspend`](crate::Tenantry::suspend) or [`archive`](crate::Tenantry::archive)
/// returns. Both were read back on the server after the fact.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ShutOut {
    /// No role can enter the tenant's database, and none of its sessions is left.
    #[non_exhaustive]
    Complete {
        /// The tenant, suspended or archived.
        tenant: Tenant,
        /// Superusers of the server that can still enter a suspended tenant's database: PostgreSQL refuses them nothing. An
        /// archived database is closed to them, too.
        superusers: Vec<String>,
        /// Roles whose comment a person had changed. It was written again; it decided nothing.
        restored_comments: Vec<String>,
    },
    /// No role can enter the tenant's database and every session was told to end, but some have not ended within a second:
    /// PostgreSQL ends a session only where its statement allows it. The operation continues until none is left; see
    /// [`Operations::events`](crate::facade::Operations::events).
    #[non_exhaustive]
    Closing {
        /// The tenant, suspended or archived.
        tenant: Tenant,
        /// The operation that continues.
        operation: OperationId,
        /// Sessions that were left.
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
    /// What a suspension or an archive has reached.
    pub(crate) async fn shut_out(&self, outcome: Outcome) -> Result<ShutOut, ChangeError> {
        if let Some(sessions) = sessions_left(&outcome) {
            return self.closing_answer(&outcome.record, sessions).await;
        }
        let record = ended(outcome)?;
        let seen = |step| record.outputs.get(step).and_then(|v| serde_json::from_value::<Closed>(v.clone()).ok());
        let first = [REFUSE, CLOSE].into_iter().find_map(seen).unwrap_or_default();
        let last = seen(VERIFY_EMPTY).unwrap_or_default();
        let restored_comments = first.restored.into_iter().chain(last.restored).collect();
        let tenant = self.subject(&record).await?;
        Ok(ShutOut::Complete { tenant, superusers: last.superusers, restored_comments })
    }

    /// The answer of an operation whose sessions were given their second; `None` if none was left.
    pub(crate) async fn closing(&self, id: OperationId) -> Result<Option<ShutOut>, ChangeError> {
        let record = self.stores.journal.read(id).await?.ok_or(ChangeError::Unknown)?;
        match left(&record) {
            Some(sessions) if !record.status.is_over() => self.closing_answer(&record, sessions).await.map(Some),
            _ => Ok(None),
        }
    }

    async fn closing_answer(&self, record: &Record, sessions: u32) -> Result<ShutOut, ChangeError> {
        Ok(ShutOut::Closing { tenant: self.subject(record).await?, operation: record.id, sessions })
    }

    async fn subject(&self, record: &Record) -> Result<Tenant, ChangeError> {
        let id: TenantId = record.subject.tenant().ok_or(ChangeError::Unknown)?;
        self.stores.registry.find(id.into()).await?.ok_or(ChangeError::Unknown)
    }
}

/// How many sessions an operation waits for, if it waits for nothing else.
fn sessions_left(outcome: &Outcome) -> Option<u32> {
    let cause = outcome.failure.as_ref().map(|f| f.cause.downcast_ref::<ClusterError>());
    let only_sessions = cause.is_none_or(|c| matches!(c, Some(ClusterError::InUse { .. })));
    let waits = !outcome.record.status.is_over() && outcome.record.step == VERIFY_EMPTY;
    if waits && only_sessions { left(&outcome.record) } else { None }
}

fn left(record: &Record) -> Option<u32> {
    let answer: SessionsLeft = serde_json::from_value(record.outputs.get(END_SESSIONS)?.clone()).ok()?;
    (answer.left > 0).then_some(answer.left)
}
