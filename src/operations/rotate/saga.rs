//! The saga of a rotation: its ordered steps and its pivot step, the flip.
//!
//! [`Rotation`](super::Rotation) begins it, and recovery continues it. No worker undoes a step once the intent of the
//! flip is committed, because its outcome may be unknown, and other nodes may use the new login from then on.
use super::AppLogin;
use super::context::RotateContext;
use super::steps::RotateStep;
use crate::cluster::OperationContext;
use crate::operation::Lane;
use crate::saga::Saga;

/// The saga of a rotation. Its end is repeatable: the flip is durable before the old login is dropped, and dropping a
/// login that no longer exists succeeds.
pub(super) fn define(stores: OperationContext, login: AppLogin) -> Saga<RotateContext> {
    Saga::new("rotate", Lane::Change, move |run| RotateContext::new(stores.clone(), login, run))
        .step(RotateStep::Seal)
        .step(RotateStep::Create)
        .step(RotateStep::Probe)
        .pivot(RotateStep::Flip)
        .step(RotateStep::Retire)
        .with_repeatable_end()
}
