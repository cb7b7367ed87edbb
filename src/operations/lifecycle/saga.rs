//! The saga of each lifecycle operation: its ordered steps and its pivot step.
//!
//! [`Lifecycle`](super::Lifecycle) begins them, and recovery continues them. Each begins with a check that can still
//! refuse the operation. From the pivot step on, a failure no longer undoes the operation: the engine retries the step,
//! or parks the operation for an administrator. Undoing could reopen a tenant that the caller wanted closed, so the
//! pivot step follows the check. A purge can be undone until it sets the status `purging`.
use super::Verb;
use super::context::LifecycleContext;
use super::steps::{
    AbandonChange, AdmitLogin, CheckStatus, CloseAgain, CloseDatabase, EndSessions, ForgetSecrets, OpenDatabase,
    ParkChange, RefuseLogins, RefuseOnStandbys, ReleasePlacement, RemoveFromServer, ResumeChange, SetStatus,
    VerifyEmpty,
};
use crate::cluster::OperationContext;
use crate::directory::AppAccess;
use crate::operation::Lane;
use crate::saga::Saga;
use crate::tenant::TenantStatus::*;

/// The saga of this operation.
pub(super) fn define(verb: Verb, stores: OperationContext, access: AppAccess) -> Saga<LifecycleContext> {
    let new_context = move |run: &_| LifecycleContext::new(stores.clone(), access, run);
    let saga = Saga::new(verb.kind(), Lane::Preempt, new_context).step(CheckStatus);
    match verb {
        Verb::Suspend => saga
            .pivot(ParkChange)
            .step(RefuseLogins)
            .step(SetStatus(Suspended))
            .step(EndSessions)
            .step(RefuseOnStandbys)
            .step(VerifyEmpty),
        Verb::Activate => saga.pivot(AdmitLogin).step(SetStatus(Active)).step(ResumeChange),
        Verb::Archive { .. } => saga
            .pivot(ParkChange)
            .step(CloseDatabase)
            .step(SetStatus(Archived))
            .step(EndSessions)
            .step(RefuseOnStandbys)
            .step(VerifyEmpty),
        // It parks nothing: what the suspension has parked stays parked.
        Verb::CloseAgain => saga.pivot(CloseAgain).step(EndSessions).step(RefuseOnStandbys).step(VerifyEmpty),
        Verb::Restore => saga.pivot(OpenDatabase).step(SetStatus(Active)).step(ResumeChange),
        // Refusing the logins can still be undone. From the status `purging` on failures no longer undo.
        Verb::Purge { .. } => saga
            .step(ParkChange)
            .step(RefuseLogins)
            .pivot(SetStatus(Purging))
            .step(RefuseOnStandbys)
            .step(RemoveFromServer)
            .step(ForgetSecrets)
            .step(ReleasePlacement)
            .step(AbandonChange)
            .step(SetStatus(Deleted)),
    }
}
