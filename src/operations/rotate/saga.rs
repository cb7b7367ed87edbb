use super::steps::Rotate;
use super::world::World;
use super::{AppLogin, KIND};
use crate::cluster::Workshop;
use crate::error::StepError;
use crate::saga::{Action, Run, Saga};

/// The plain list of a rotation's steps.
pub(crate) struct RotateSaga {
    shop: Workshop,
    login: AppLogin,
    steps: Vec<Box<dyn Action<World>>>,
}

impl RotateSaga {
    pub(super) fn new(shop: Workshop, login: AppLogin) -> Self {
        let steps = Rotate::ALL.map(|s| Box::new(s) as Box<dyn Action<World>>).into();
        Self { shop, login, steps }
    }
    pub(super) fn len(&self) -> u32 {
        self.steps.len() as u32
    }
}

impl Saga for RotateSaga {
    type World = World;
    fn kind(&self) -> &'static str {
        KIND
    }
    fn steps(&self) -> &[Box<dyn Action<World>>] {
        &self.steps
    }
    /// From the flip's intent on its outcome may be unknown, and nodes may use the new login.
    fn no_return(&self) -> usize {
        Rotate::ALL.iter().position(|s| matches!(s, Rotate::Flip)).unwrap_or_default()
    }
    /// The flip is known to be stored when the old login goes, and a login that is gone is found gone.
    fn end_may_repeat(&self) -> bool {
        true
    }
    fn world(&self, run: &Run) -> Result<World, StepError> {
        World::new(self.shop.clone(), self.login, run)
    }
}
