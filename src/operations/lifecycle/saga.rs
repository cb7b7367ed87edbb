//! The saga of each lifecycle verb: its ordered steps and its pivot step.
//!
//! [`Lifecycle`](super::Lifecycle) drives them, and recovery continues them. Each begins with a check that can still
//! refuse the operation. From the pivot step on failures no longer undo: the engine retries until the verb has
//! completed.
use super::Verb;
use super::context::LifecycleContext;
use super::server::{
    AdmitLogin, CloseDatabase, EndSessions, OpenDatabase, RefuseLogins, RefuseOnStandbys, RemoveFromServer, VerifyEmpty,
};
use super::steps::{AbandonChange, CheckStatus, ForgetSecrets, ParkChange, ReleasePlacement, ResumeChange, SetStatus};
use crate::cluster::OperationContext;
use crate::directory::AppAccess;
use crate::error::StepError;
use crate::saga::{Execution, Saga, SagaStep};
use crate::tenant::TenantStatus::*;

/// The ordered steps of one verb.
pub(crate) struct LifecycleSaga {
    stores: OperationContext,
    verb: Verb,
    access: AppAccess,
    steps: Vec<Box<dyn SagaStep<LifecycleContext>>>,
    pivot_index: usize,
}

impl LifecycleSaga {
    pub(super) fn new(stores: OperationContext, verb: Verb, access: AppAccess) -> Self {
        // A verb that has begun to act is never undone, because a half-closed tenant is no state that a caller asked
        // for. So the pivot step comes right after the check, which runs when the operation already has its lane.
        let (steps, pivot_index): (Vec<Box<dyn SagaStep<LifecycleContext>>>, _) = match verb {
            Verb::Suspend => (
                vec![
                    Box::new(CheckStatus),
                    Box::new(ParkChange),
                    Box::new(RefuseLogins),
                    Box::new(SetStatus(Suspended)),
                    Box::new(EndSessions),
                    Box::new(RefuseOnStandbys),
                    Box::new(VerifyEmpty),
                ],
                1,
            ),
            Verb::Activate => (
                vec![Box::new(CheckStatus), Box::new(AdmitLogin), Box::new(SetStatus(Active)), Box::new(ResumeChange)],
                1,
            ),
            Verb::Archive { .. } => (
                vec![
                    Box::new(CheckStatus),
                    Box::new(ParkChange),
                    Box::new(CloseDatabase),
                    Box::new(SetStatus(Archived)),
                    Box::new(EndSessions),
                    Box::new(RefuseOnStandbys),
                    Box::new(VerifyEmpty),
                ],
                1,
            ),
            Verb::Restore => (
                vec![
                    Box::new(CheckStatus),
                    Box::new(OpenDatabase),
                    Box::new(SetStatus(Active)),
                    Box::new(ResumeChange),
                ],
                1,
            ),
            // Refusing the logins can still be undone. From the status `purging` on failures no longer undo.
            Verb::Purge { .. } => (
                vec![
                    Box::new(CheckStatus),
                    Box::new(ParkChange),
                    Box::new(RefuseLogins),
                    Box::new(SetStatus(Purging)),
                    Box::new(RefuseOnStandbys),
                    Box::new(RemoveFromServer),
                    Box::new(ForgetSecrets),
                    Box::new(ReleasePlacement),
                    Box::new(AbandonChange),
                    Box::new(SetStatus(Deleted)),
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
