use super::cluster::Cluster;
use super::content::{CloseLedger, DropMigrator, FirstAdmin, HostStep, Migrations};
use super::context::ProvisionContext;
use super::landlord::{Create, PlaceTenant, Publish, Seal};
use super::link::{Deliver, Issue};
use super::{KIND, ProvisionConfig};
use crate::cluster::OperationContext;
use crate::error::StepError;
use crate::saga::{Execution, Saga, SagaStep};
use std::sync::Arc;

/// The plain list of a provisioning's steps.
pub(crate) struct ProvisionSaga {
    stores: OperationContext,
    config: Arc<ProvisionConfig>,
    steps: Vec<Box<dyn SagaStep<ProvisionContext>>>,
    publish: usize,
}

impl ProvisionSaga {
    pub(super) fn new(stores: OperationContext, config: ProvisionConfig) -> Self {
        let mut steps: Vec<Box<dyn SagaStep<ProvisionContext>>> =
            vec![Box::new(Create), Box::new(PlaceTenant), Box::new(Seal)];
        steps.extend(Cluster::BEFORE_MIGRATIONS.map(|s| Box::new(s) as Box<dyn SagaStep<ProvisionContext>>));
        steps.push(Box::new(Migrations));
        steps.push(Box::new(FirstAdmin));
        steps.extend(hosts(&config.before, true));
        steps.push(Box::new(CloseLedger));
        steps.push(Box::new(DropMigrator));
        let publish = steps.len();
        steps.push(Box::new(Publish));
        steps.push(Box::new(Issue));
        steps.push(Box::new(Deliver { outside: config.delivery.is_some() }));
        steps.extend(hosts(&config.after, false));
        Self { stores, config: Arc::new(config), steps, publish }
    }

    pub(super) fn len(&self) -> u32 {
        self.steps.len() as u32
    }
}

fn hosts(
    steps: &[Arc<dyn crate::operations::step::AnyStep>], before_activation: bool,
) -> Vec<Box<dyn SagaStep<ProvisionContext>>> {
    let host = |step: &Arc<dyn crate::operations::step::AnyStep>| HostStep { step: step.clone(), before_activation };
    steps.iter().map(|s| Box::new(host(s)) as Box<dyn SagaStep<ProvisionContext>>).collect()
}

impl Saga for ProvisionSaga {
    type Context = ProvisionContext;
    fn kind(&self) -> &'static str {
        KIND
    }
    fn steps(&self) -> &[Box<dyn SagaStep<ProvisionContext>>] {
        &self.steps
    }
    fn pivot_index(&self) -> usize {
        self.publish
    }
    fn context(&self, run: &Execution) -> Result<ProvisionContext, StepError> {
        ProvisionContext::new(self.stores.clone(), self.config.clone(), run)
    }
}
