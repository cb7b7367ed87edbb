//! The saga of a rotation: its ordered steps and its pivot step, the flip.
//!
//! [`Rotation`](super::Rotation) drives it, and recovery continues it. No worker undoes a step once the intent of the
//! flip is committed, because other nodes may use the new login from then on.
use super::context::RotateContext;
use super::steps::Rotate;
use super::{AppLogin, KIND};
use crate::cluster::OperationContext;
use crate::error::StepError;
use crate::saga::{Execution, Saga, SagaStep};

/// The ordered steps of a rotation.
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
    /// The flip. Once its intent is committed its outcome may be unknown, and nodes may use the new login.
    fn pivot_index(&self) -> usize {
        Rotate::ALL.iter().position(|s| matches!(s, Rotate::Flip)).unwrap_or_default()
    }
    /// The flip is durable before the old login is dropped, and dropping a login that no longer exists succeeds.
    fn final_record_is_repeatable(&self) -> bool {
        true
    }
    fn context(&self, run: &Execution) -> Result<RotateContext, StepError> {
        RotateContext::new(self.stores.clone(), self.login, run)
    }
}
