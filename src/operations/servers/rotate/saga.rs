//! The saga of a rotation of the provisioner's passwords: its ordered steps and its pivot step, the flip.
use super::context::RotateServerContext;
use super::steps::RotateServerStep;
use crate::cluster::OperationContext;
use crate::operation::Lane;
use crate::saga::Saga;

/// The stored name of the saga.
pub(super) const KIND: &str = "rotate_server";

/// The saga of a rotation. Once the intent of the flip is committed, other nodes may use the new password.
pub(in crate::operations::servers) fn define(stores: OperationContext) -> Saga<RotateServerContext> {
    Saga::new(KIND, Lane::Change, move |run| RotateServerContext::new(stores.clone(), run))
        .step(RotateServerStep::Seal)
        .step(RotateServerStep::Idle)
        .pivot(RotateServerStep::Flip)
        .step(RotateServerStep::Other)
        .step(RotateServerStep::Forget)
}
