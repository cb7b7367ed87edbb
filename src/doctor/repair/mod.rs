//! Acting: the operation of the kind `repair`, and the repairs that begin another operation.
//!
//! [`Doctor::apply`](super::Doctor::apply) calls [`Repairs::act`] for each finding of a plan that has a repair. The saga
//! has three steps: it examines the subject again under its lock, it acts, and it examines once more.
//!
//! Invariants:
//! - A repair acts only if the fresh examination makes the same finding with the same fingerprint and the same repair.
//! - The state before is in the operation's record before anything is changed, also if another operation does the repair.
//!   An operation that was open before gets the reason as an event.
//! - A repair only moves towards the state that the landlord describes. So it has no pivot step, its undo does nothing,
//!   and a failure frees the tenant at once.
use super::examine::Examiner;
use super::finding::Finding;
use super::plan::Plan;
use super::report::RepairOutcome;
use super::view::Expected;
use crate::cluster::OperationContext;
use crate::error::{BeginError, chain};
use crate::operation::OperationStatus;
use crate::saga::{AnySaga, CallOptions, Engine, Observer, Outcome, Saga, Started};
use crate::store::schema::LandlordPool;
use context::RepairContext;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use time::OffsetDateTime;

mod answers;
mod context;
mod delegate;
mod drivers;
mod landlord;
mod saga;
mod server;
mod steps;
mod tenant;
mod users;
pub(super) use delegate::{Admins, act as act_by_other_operation};
pub(crate) use drivers::Drivers;

/// The stored kind of the operation.
pub(crate) const KIND: &str = "repair";

/// The request as the journal stores it, also as a part of the request of another operation that does a repair. The
/// finding holds the state before. It contains no secret and no statement.
#[derive(Serialize, Deserialize)]
struct Request {
    finding: Finding,
    /// When the examination began whose plan selects this repair.
    #[serde(with = "time::serde::rfc3339")]
    planned_at: OffsetDateTime,
    /// Node that has made the plan.
    planned_by: String,
}

impl Request {
    fn new(finding: Finding, plan: &Plan) -> Self {
        Self { finding, planned_at: plan.made_at, planned_by: plan.made_by.clone() }
    }
}

/// Why a repair did not act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the finding is gone, so nothing was changed")]
    Gone,
    #[error("the subject has changed since the plan was made, so nothing was changed; make a new plan")]
    Changed,
    #[error(
        "a part of the subject could not be seen, so it is not known whether the finding is gone; examine it again"
    )]
    Unseen,
}

/// Finds, among these findings of a fresh examination, the one that a plan selects.
///
/// # Errors
/// `Gone` if there is none about the same, `Changed` if something else was seen or another repair is offered, `Unseen` if
/// it may only be hidden.
fn compare<'a>(found: &'a [Finding], selected: &Finding) -> Result<&'a Finding, Refused> {
    let mut same = found.iter().filter(|finding| finding.is_about(selected)).peekable();
    match same.peek() {
        None if found.iter().any(|finding| finding.may_hide(selected.code)) => Err(Refused::Unseen),
        None => Err(Refused::Gone),
        Some(_) => same.find(|finding| finding.is_unchanged(selected)).ok_or(Refused::Changed),
    }
}

/// What the steps of a repair need. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RepairTools {
    pub(crate) examiner: Examiner,
    pub(crate) stores: OperationContext,
    pub(crate) landlord: LandlordPool,
    pub(crate) expected: Expected,
}

/// Begins the operations of the kind `repair`. It spawns no task: if one of its futures is dropped, the work stops there,
/// and recovery continues it after the lease.
#[derive(Clone)]
pub(crate) struct Repairs {
    engine: Engine,
    saga: Arc<Saga<RepairContext>>,
}

impl Repairs {
    pub(crate) fn new(tools: RepairTools, engine: Engine) -> Self {
        Self { engine, saga: Arc::new(saga::define(tools)) }
    }
    /// The saga, for a [`Recoverer`](crate::saga::Recoverer).
    pub(crate) fn saga(&self) -> Arc<dyn AnySaga> {
        self.saga.clone()
    }

    /// Does the repair of a finding of this plan, and returns what became of it. `reason` is stored with the operation.
    pub(super) async fn act(&self, finding: &Finding, plan: &Plan, reason: &str) -> RepairOutcome {
        let (subject, request) = (finding.subject.clone(), Request::new(finding.clone(), plan));
        let options = CallOptions::new().reason(reason);
        let begun = async {
            let intent = self.engine.intent(&self.saga, subject, &request, &options)?;
            self.engine.begin::<_, BeginError>(&self.saga, &intent, async { Ok(()) }).await
        };
        match begun.await {
            Ok(Started::New(operation)) => {
                let id = operation.record().id;
                match operation.drive(&self.engine, &Observer::none()).await {
                    Ok(outcome) => to_repair_outcome(outcome),
                    Err(error) => RepairOutcome::Failed { operation: Some(id), error: chain(&error) },
                }
            }
            Ok(Started::Joined(record)) => RepairOutcome::Busy { operation: record.id },
            Err(BeginError::Busy { operation, .. }) => RepairOutcome::Busy { operation },
            Err(error) => RepairOutcome::Failed { operation: None, error: chain(&error) },
        }
    }
}

/// Reads what became of a repair from the state in which its worker has left the operation.
fn to_repair_outcome(outcome: Outcome) -> RepairOutcome {
    let Outcome { record, failure, .. } = outcome;
    let operation = record.id;
    match failure {
        Some(failure) => match failure.cause.downcast_ref::<Refused>() {
            Some(Refused::Gone) => RepairOutcome::Gone,
            Some(Refused::Changed) => RepairOutcome::Changed,
            Some(Refused::Unseen) | None => {
                RepairOutcome::Failed { operation: Some(operation), error: chain(&failure) }
            }
        },
        None if record.status == OperationStatus::Done => match answers::is_repaired(&record) {
            true => RepairOutcome::Repaired { operation },
            false => RepairOutcome::StillFound { operation },
        },
        None => {
            let error = chain(&record.to_failure(record.failure_state()));
            RepairOutcome::Failed { operation: Some(operation), error }
        }
    }
}
