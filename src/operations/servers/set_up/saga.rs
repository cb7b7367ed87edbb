//! The saga of a server's set-up.
//!
//! [`ServerSetup`](super::ServerSetup) drives it. There is one saga value per call, because it holds the server admin's
//! connection options; recovery therefore never runs it.
use super::context::{ServerSetupContext, Work};
use super::steps::ServerSetupStep;
use crate::operation::Lane;
use crate::saga::Saga;

/// The stored name of the saga.
pub(super) const KIND: &str = "set_up_server";

/// The saga of one set-up call. No step is a pivot: a failed set-up is undone. That removes its rows from the landlord.
/// What it has created on the server stays, and the next set-up finds and uses it.
pub(super) fn define(work: Work, steps: &[ServerSetupStep]) -> Saga<ServerSetupContext> {
    Saga::new(KIND, Lane::Change, move |_| Ok(ServerSetupContext::new(work.clone()))).steps(steps.iter().copied())
}
