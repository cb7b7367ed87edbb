use super::context::RotateContext;
use super::steps::Rotate;
use super::{AppLogin, KIND};
use crate::cluster::OperationContext;
use crate::error::StepError;
use crate::saga::{Execution, Saga, SagaStep};

/// The plain list of a rotation's steps.
pub(crate) struct RotateSaga {
    stores: OperationContext,
    login: AppLogin,
    steps: Vec<Box<dyn SagaStep<RotateContext>>>,
}

impl RotateSaga {
    pub(super) fn new(stores: OperationContext, login: AppLogin) -> Self {
        let steps = Rotate::ALL.map(|s| Box::new(s) as Box<dyn SagaStep<RotateContext>>).into();
        Self { stores, login, steps }
    }
    pub(super) fn len(&self) -> u32 {
        self.steps.len() as u32
    }
}

impl Saga for RotateSaga {
    type Context = RotateContext;
    fn kind(&self) -> &'static str {
        KIND
    }
    fn steps(&self) -> &[Box<dyn SagaStep<RotateContext>>] {
        &self.steps
    }
    /// From the flip's intent on its outcome may be unknown, and nodes may use the new login.
    fn pivot_index(&self) -> usize {
        Rotate::ALL.iter().position(|s| matches!(s, Rotate::Flip)).unwrap_or_default()
    }
    /// The flip is known to be stored when the old login goes, and a login that is gone is found gone.
    fn final_record_is_repeatable(&self) -> bool {
        true
    }
    fn context(&self, run: &Execution) -> Result<RotateContext, StepError> {
        RotateContext::new(self.stores.clone(), self.login, run)
    }
}
