use super::Verb;
use super::context::LifecycleContext;
use super::server::{Admit, Close, EndSessions, Open, Refuse, Remove, Standbys, VerifyEmpty};
use super::steps::{Abandon, Become, Check, Forget, Park, Release, Resume};
use crate::cluster::OperationContext;
use crate::directory::AppAccess;
use crate::error::StepError;
use crate::saga::{Execution, Saga, SagaStep};
use crate::tenant::TenantStatus::*;

/// The plain list of a verb's steps.
pub(crate) struct LifecycleSaga {
    stores: OperationContext,
    verb: Verb,
    access: AppAccess,
    steps: Vec<Box<dyn SagaStep<LifecycleContext>>>,
    pivot_index: usize,
}

impl LifecycleSaga {
    pub(super) fn new(stores: OperationContext, verb: Verb, access: AppAccess) -> Self {
        // A fence that began only goes forward: half a fence is no state that anybody asked for. Before it, under the
        // lane, it is looked at once more whether it may begin.
        let (steps, pivot_index): (Vec<Box<dyn SagaStep<LifecycleContext>>>, _) = match verb {
            Verb::Suspend => (
                vec![
                    Box::new(Check),
                    Box::new(Park),
                    Box::new(Refuse),
                    Box::new(Become(Suspended)),
                    Box::new(EndSessions),
                    Box::new(Standbys),
                    Box::new(VerifyEmpty),
                ],
                1,
            ),
            Verb::Activate => (vec![Box::new(Check), Box::new(Admit), Box::new(Become(Active)), Box::new(Resume)], 1),
            Verb::Archive { .. } => (
                vec![
                    Box::new(Check),
                    Box::new(Park),
                    Box::new(Close),
                    Box::new(Become(Archived)),
                    Box::new(EndSessions),
                    Box::new(Standbys),
                    Box::new(VerifyEmpty),
                ],
                1,
            ),
            Verb::Restore => (vec![Box::new(Check), Box::new(Open), Box::new(Become(Active)), Box::new(Resume)], 1),
            // Refused first, which can be taken back; from the status `purging` on it only goes forward.
            Verb::Purge { .. } => (
                vec![
                    Box::new(Check),
                    Box::new(Park),
                    Box::new(Refuse),
                    Box::new(Become(Purging)),
                    Box::new(Standbys),
                    Box::new(Remove),
                    Box::new(Forget),
                    Box::new(Release),
                    Box::new(Abandon),
                    Box::new(Become(Deleted)),
                ],
                3,
            ),
        };
        Self { stores, verb, access, steps, pivot_index }
    }
    pub(super) fn verb(&self) -> Verb {
        self.verb
    }
    pub(super) fn len(&self) -> u32 {
        self.steps.len() as u32
    }
}

impl Saga for LifecycleSaga {
    type Context = LifecycleContext;
    fn kind(&self) -> &'static str {
        self.verb.kind()
    }
    fn steps(&self) -> &[Box<dyn SagaStep<LifecycleContext>>] {
        &self.steps
    }
    fn pivot_index(&self) -> usize {
        self.pivot_index
    }
    fn context(&self, run: &Execution) -> Result<LifecycleContext, StepError> {
        LifecycleContext::new(self.stores.clone(), self.access, run)
    }
}
