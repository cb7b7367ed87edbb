use super::cluster::Cluster;
use super::content::{CloseLedger, DropMigrator, FirstAdmin, HostStep, Migrations};
use super::landlord::{Create, Place, Publish, Seal};
use super::link::{Deliver, Issue};
use super::world::World;
use super::{KIND, Recipe};
use crate::cluster::Workshop;
use crate::error::StepError;
use crate::saga::{Action, Run, Saga};
use std::sync::Arc;

/// The plain list of a provisioning's steps.
pub(crate) struct ProvisionSaga {
    shop: Workshop,
    recipe: Arc<Recipe>,
    steps: Vec<Box<dyn Action<World>>>,
    publish: usize,
}

impl ProvisionSaga {
    pub(super) fn new(shop: Workshop, recipe: Recipe) -> Self {
        let mut steps: Vec<Box<dyn Action<World>>> = vec![Box::new(Create), Box::new(Place), Box::new(Seal)];
        steps.extend(Cluster::BEFORE_MIGRATIONS.map(|s| Box::new(s) as Box<dyn Action<World>>));
        steps.push(Box::new(Migrations));
        steps.push(Box::new(FirstAdmin));
        steps.extend(hosts(&recipe.before, true));
        steps.push(Box::new(CloseLedger));
        steps.push(Box::new(DropMigrator));
        let publish = steps.len();
        steps.push(Box::new(Publish));
        steps.push(Box::new(Issue));
        steps.push(Box::new(Deliver { outside: recipe.delivery.is_some() }));
        steps.extend(hosts(&recipe.after, false));
        Self { shop, recipe: Arc::new(recipe), steps, publish }
    }

    pub(super) fn len(&self) -> u32 {
        self.steps.len() as u32
    }
}

fn hosts(steps: &[Arc<dyn crate::operations::step::AnyStep>], before_activation: bool) -> Vec<Box<dyn Action<World>>> {
    let host = |step: &Arc<dyn crate::operations::step::AnyStep>| HostStep { step: step.clone(), before_activation };
    steps.iter().map(|s| Box::new(host(s)) as Box<dyn Action<World>>).collect()
}

impl Saga for ProvisionSaga {
    type World = World;
    fn kind(&self) -> &'static str {
        KIND
    }
    fn steps(&self) -> &[Box<dyn Action<World>>] {
        &self.steps
    }
    fn no_return(&self) -> usize {
        self.publish
    }
    fn world(&self, run: &Run) -> Result<World, StepError> {
        World::new(self.shop.clone(), self.recipe.clone(), run)
    }
}
