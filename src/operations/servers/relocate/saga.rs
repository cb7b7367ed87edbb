//! The saga of a relocation: its ordered steps and its pivot step, after the change of the row.
use super::context::RelocateContext;
use super::steps::RelocateStep;
use crate::cluster::OperationContext;
use crate::operation::Lane;
use crate::saga::Saga;

/// The saga of a relocation. Until the intent of the last step is committed a failure undoes it.
pub(in crate::operations::servers) fn define(stores: OperationContext) -> Saga<RelocateContext> {
    Saga::new("relocate_server", Lane::Preempt, move |run| RelocateContext::new(stores.clone(), run))
        .step(RelocateStep::Park)
        .step(RelocateStep::Move)
        .pivot(RelocateStep::Resume)
}
