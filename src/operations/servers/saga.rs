//! The saga of a server's set-up.
//!
//! [`ServerSetup`](super::ServerSetup) drives it. There is one saga value per call, because it holds the server admin's
//! connection options; recovery therefore never runs it. A failed set-up is undone in the landlord only.
use super::context::{ServerSetupContext, Work};
use super::steps::ServerSetupStep;
use crate::error::StepError;
use crate::saga::{Execution, Saga, SagaStep};
use crate::server::DatabaseServer;
use sqlx::postgres::PgConnectOptions;

/// The stored name of the saga.
pub(super) const KIND: &str = "set_up_server";

/// The ordered steps of one set-up call.
pub(super) struct ServerSetupSaga {
    work: Work,
    steps: Vec<Box<dyn SagaStep<ServerSetupContext>>>,
}
impl ServerSetupSaga {
    pub(super) fn new(work: Work, steps: &[ServerSetupStep]) -> Self {
        let steps = steps.iter().map(|s| Box::new(*s) as Box<dyn SagaStep<ServerSetupContext>>).collect();
        Self { work, steps }
    }
    pub(super) fn server(&self) -> &DatabaseServer {
        &self.work.server
    }
    pub(super) fn admin(&self) -> Option<&PgConnectOptions> {
        self.work.admin.as_ref()
    }
    pub(super) fn len(&self) -> u32 {
        self.steps.len() as u32
    }
}
impl Saga for ServerSetupSaga {
    type Context = ServerSetupContext;
    fn kind(&self) -> &'static str {
        KIND
    }
    fn steps(&self) -> &[Box<dyn SagaStep<ServerSetupContext>>] {
        &self.steps
    }
    /// No step is a pivot: a failed set-up is undone. That removes its rows from the landlord. What it has created on
    /// the server stays, and the next set-up finds and uses it.
    fn pivot_index(&self) -> usize {
        self.steps.len()
    }
    fn context(&self, _: &Execution) -> Result<ServerSetupContext, StepError> {
        Ok(ServerSetupContext::new(self.work.clone()))
    }
}
