//! The saga of a server's set-up.
use super::context::{Work, World};
use super::steps::SetUpStep;
use crate::error::StepError;
use crate::saga::{Action, Run, Saga};
use crate::server::DatabaseServer;
use sqlx::postgres::PgConnectOptions;

/// The stored name of the saga.
pub(super) const KIND: &str = "set_up_server";

/// The plain list of a set-up's steps.
pub(super) struct SetUpSaga {
    work: Work,
    steps: Vec<Box<dyn Action<World>>>,
}
impl SetUpSaga {
    pub(super) fn new(work: Work, steps: &[SetUpStep]) -> Self {
        let steps = steps.iter().map(|s| Box::new(*s) as Box<dyn Action<World>>).collect();
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
impl Saga for SetUpSaga {
    type World = World;
    fn kind(&self) -> &'static str {
        KIND
    }
    fn steps(&self) -> &[Box<dyn Action<World>>] {
        &self.steps
    }
    /// A set-up that fails leaves nothing in the landlord; what it made on the server is found by the next one.
    fn no_return(&self) -> usize {
        self.steps.len()
    }
    fn world(&self, _: &Run) -> Result<World, StepError> {
        Ok(World::new(self.work.clone()))
    }
}
