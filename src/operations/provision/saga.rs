//! The saga of a provisioning: its ordered steps and its pivot step, which publishes the tenant.
//!
//! [`Provisioner`](super::Provisioner) drives it, and recovery continues it. The application's own steps are part of
//! the list: those before activation run before the migrator login is dropped, those after activation at the end.
use super::cluster::ClusterStep;
use super::content::{CloseLedger, DropMigrator, FirstAdmin, HostStep, Migrations};
use super::context::ProvisionContext;
use super::landlord::{CreateTenant, PlaceTenant, Publish, SealSecrets};
use super::link::{DeliverLink, IssueLink};
use super::{KIND, ProvisionConfig};
use crate::cluster::OperationContext;
use crate::error::StepError;
use crate::saga::{Execution, Saga, SagaStep};
use std::sync::Arc;

/// The ordered steps of a provisioning.
pub(crate) struct ProvisionSaga {
    stores: OperationContext,
    config: Arc<ProvisionConfig>,
    steps: Vec<Box<dyn SagaStep<ProvisionContext>>>,
    /// Index of the pivot step.
    publish: usize,
}

impl ProvisionSaga {
    pub(super) fn new(stores: OperationContext, config: ProvisionConfig) -> Self {
        let mut steps: Vec<Box<dyn SagaStep<ProvisionContext>>> =
            vec![Box::new(CreateTenant), Box::new(PlaceTenant), Box::new(SealSecrets)];
        steps.extend(ClusterStep::BEFORE_MIGRATIONS.map(|s| Box::new(s) as Box<dyn SagaStep<ProvisionContext>>));
        steps.push(Box::new(Migrations));
        steps.push(Box::new(FirstAdmin));
        steps.extend(host_steps(&config.before, true));
        steps.push(Box::new(CloseLedger));
        steps.push(Box::new(DropMigrator));
        let publish = steps.len();
        steps.push(Box::new(Publish));
        steps.push(Box::new(IssueLink));
        steps.push(Box::new(DeliverLink { has_receiver: config.delivery.is_some() }));
        steps.extend(host_steps(&config.after, false));
        Self { stores, config: Arc::new(config), steps, publish }
    }

    pub(super) fn len(&self) -> u32 {
        self.steps.len() as u32
    }
}

/// The application's steps as steps of the saga.
fn host_steps(
    steps: &[Arc<dyn crate::operations::step::AnyStep>], before_activation: bool,
) -> Vec<Box<dyn SagaStep<ProvisionContext>>> {
    let wrap = |step: &Arc<dyn crate::operations::step::AnyStep>| HostStep { step: step.clone(), before_activation };
    steps.iter().map(|s| Box::new(wrap(s)) as Box<dyn SagaStep<ProvisionContext>>).collect()
}

impl Saga for ProvisionSaga {
    type Context = ProvisionContext;
    fn kind(&self) -> &'static str {
        KIND
    }
    fn steps(&self) -> &[Box<dyn SagaStep<ProvisionContext>>] {
        &self.steps
    }
    /// The step that publishes the tenant.
    fn pivot_index(&self) -> usize {
        self.publish
    }
    fn context(&self, run: &Execution) -> Result<ProvisionContext, StepError> {
        ProvisionContext::new(self.stores.clone(), self.config.clone(), run)
    }
}
