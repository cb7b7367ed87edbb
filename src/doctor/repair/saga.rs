//! The saga `repair`: its ordered steps. It has no pivot step, because its undo has nothing to do.
use super::RepairTools;
use super::context::RepairContext;
use super::steps::RepairStep;
use crate::operation::Lane;
use crate::saga::Saga;

/// The saga of a repair.
pub(super) fn define(tools: RepairTools) -> Saga<RepairContext> {
    Saga::new(super::KIND, Lane::Change, move |run| RepairContext::new(tools.clone(), run))
        .step(RepairStep::Check)
        .step(RepairStep::Apply)
        .step(RepairStep::Verify)
}
