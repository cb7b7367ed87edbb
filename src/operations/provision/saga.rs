//! The saga of a provisioning: its ordered steps and its pivot step, which publishes the tenant.
//!
//! [`Provisioner`](super::Provisioner) begins it, and recovery continues it. The application's steps before activation are
//! part of the list and run before the migrator login is dropped. The last step begins the follow-up work.
//!
//! In operations of versions before follow-up work, the delivery of the link and the application's steps after
//! activation stand from the place of `follow_up.begin` on. A worker of this version that takes such an operation over
//! runs `follow_up.begin` in place of what is left of them.
use super::ProvisionConfig;
use super::context::ProvisionContext;
use super::steps::{
    BeginFollowUp, CloseLedger, ClusterStep, CreateTenant, DropMigrator, FirstAdmin, HostStep, IssueLink, Migrations,
    PlaceTenant, Publish, SealSecrets,
};
use crate::cluster::OperationContext;
use crate::operation::Lane;
use crate::saga::Saga;
use std::sync::Arc;

/// The saga of a provisioning.
pub(super) fn define(stores: OperationContext, config: Arc<ProvisionConfig>) -> Saga<ProvisionContext> {
    let before: Vec<_> = config.before.iter().cloned().map(HostStep).collect();
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
        .step(BeginFollowUp)
}
