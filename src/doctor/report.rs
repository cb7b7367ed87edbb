//! What became of the repairs of a plan.
use super::finding::Finding;
use crate::operation::OperationId;
use serde::Serialize;

/// The result of applying a plan.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Each finding of the plan that has a repair, with its outcome, in the order of the plan.
    pub outcomes: Vec<(Finding, RepairOutcome)>,
}

impl Report {
    /// Whether every repair was done or was not needed any more.
    pub fn is_complete(&self) -> bool {
        self.outcomes.iter().all(|(_, outcome)| matches!(outcome, RepairOutcome::Repaired { .. } | RepairOutcome::Gone))
    }
}

/// What became of one repair.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RepairOutcome {
    /// The repair was done, and the finding is gone.
    Repaired {
        /// The operation that did it.
        operation: OperationId,
    },
    /// The finding was gone before the repair began. Nothing was changed.
    Gone,
    /// The subject has changed since the plan was made. Nothing was changed; make a new plan.
    Changed,
    /// The repair was done, and the finding is still there.
    StillFound {
        /// The operation that did it.
        operation: OperationId,
    },
    /// Another operation of the subject is open. Nothing was changed.
    Busy {
        /// The open operation.
        operation: OperationId,
    },
    /// The repair failed.
    Failed {
        /// The operation, if it was begun.
        operation: Option<OperationId>,
        /// The error with its causes.
        error: String,
    },
}
