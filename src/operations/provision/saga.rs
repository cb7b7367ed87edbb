//! The saga of a provisioning: its ordered steps and its pivot step, which publishes the tenant.
//!
//! [`Provisioner`](super::Provisioner) begins it, and recovery continues it. The application's own steps are part of
//! the list: those before activation run before the migrator login is dropped, those after activation at the end.
use super::ProvisionConfig;
use super::context::ProvisionContext;
use super::steps::{
    CloseLedger, ClusterStep, CreateTenant, DeliverLink, DropMigrator, FirstAdmin, HostStep, IssueLink, Migrations,
    PlaceTenant, Publish, SealSecrets,
};
use crate::cluster::OperationContext;
use crate::operation::Lane;
use crate::operations::step::AnyStep;
use crate::saga::Saga;
use std::sync::Arc;

/// The saga of a provisioning.
pub(super) fn define(stores: OperationContext, config: Arc<ProvisionConfig>) -> Saga<ProvisionContext> {
    let before = host_steps(&config.before, true);
    let after = host_steps(&config.after, false);
    let has_receiver = config.delivery.is_some();
    Saga::new("provision", Lane::Change, move |run| ProvisionContext::new(stores.clone(), config.clone(), run))
        .step(CreateTenant)
        .step(PlaceTenant)
        .step(SealSecrets)
        .steps(ClusterStep::BEFORE_MIGRATIONS)
        .step(Migrations)
        .step(FirstAdmin)
        .steps(before)
        .step(CloseLedger)
        .step(DropMigrator)
        .pivot(Publish)
        .step(IssueLink)
        .step(DeliverLink { has_receiver })
        .steps(after)
}

/// The application's steps as steps of the saga.
fn host_steps(steps: &[Arc<dyn AnyStep>], before_activation: bool) -> Vec<HostStep> {
    steps.iter().map(|step| HostStep { step: step.clone(), before_activation }).collect()
}
