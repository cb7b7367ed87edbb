//! The saga of a server's set-up.
use super::context::{ServerSetupContext, Work};
use super::steps::ServerSetupStep;
use crate::error::StepError;
use crate::saga::{Execution, Saga, SagaStep};
use crate::server::DatabaseServer;
use sqlx::postgres::PgConnectOptions;

/// The stored name of the saga.
pub(super) const KIND: &str = "set_up_server";

/// The plain list of a set-up's steps.
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
    /// A set-up that fails leaves nothing in the landlord; what it made on the server is found by the next one.
    fn pivot_index(&self) -> usize {
        self.steps.len()
    }
    fn context(&self, _: &Execution) -> Result<ServerSetupContext, StepError> {
        Ok(ServerSetupContext::new(self.work.clone()))
    }
}
