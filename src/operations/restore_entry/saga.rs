//! The saga that restores a directory entry: its ordered steps and its pivot step, the publication of the entry.
//!
//! It uses the steps of a rotation that create and probe a login.
use super::steps::RestoreStep;
use crate::cluster::OperationContext;
use crate::directory::ConnectionSettings;
use crate::operation::Lane;
use crate::operations::rotate::{AppLogin, RotateContext, RotateStep};
use crate::saga::Saga;

/// The saga. Before its pivot step a failure drops the new login again.
pub(super) fn define(stores: OperationContext, login: AppLogin, settings: ConnectionSettings) -> Saga<RotateContext> {
    Saga::new(super::KIND, Lane::Change, move |run| RotateContext::new(stores.clone(), login, run))
        .step(RestoreStep::Seal)
        .step(RotateStep::Create)
        .step(RotateStep::Probe)
        .pivot(RestoreStep::Publish(settings))
        .step(RestoreStep::Retire)
}
