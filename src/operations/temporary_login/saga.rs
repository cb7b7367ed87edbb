//! The saga of a temporary login: its ordered steps. It has no pivot step, so every failure drops the login again.
use super::KIND;
use super::context::TemporaryLoginContext;
use super::passwords::Passwords;
use super::steps::TemporaryLoginStep;
use crate::cluster::OperationContext;
use crate::directory::AppAccess;
use crate::operation::Lane;
use crate::saga::Saga;

pub(super) fn define(stores: OperationContext, access: AppAccess, passwords: Passwords) -> Saga<TemporaryLoginContext> {
    Saga::new(KIND, Lane::Change, move |run| TemporaryLoginContext::new(stores.clone(), access, &passwords, run))
        .step(TemporaryLoginStep::Record)
        .step(TemporaryLoginStep::Create)
        .step(TemporaryLoginStep::Probe)
}
