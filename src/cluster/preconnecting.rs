//! Opening a worker's session while the intent of its operation is still being committed, to save the time of the
//! login.
//!
//! An operation that needs this makes its first worker's [`TenantSessions`] before it commits the intent and gives them
//! to the operation. Until the worker takes the lock, the session runs no statement, so opening it early is harmless.
//!
//! [`TenantSessions`]: super::TenantSessions
use super::OperationContext;
use super::locked_session::Preconnected;
use crate::error::StepError;
use crate::server::DatabaseServer;
use crate::store::journal::Intent;
use crate::tenant::TenantId;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// A session that a spawned task is opening, so that the login does not delay the commit of the intent. Dropping this
/// aborts the task and closes the session.
pub(super) struct Preconnecting(AbortOnDropHandle<Result<(DatabaseServer, Preconnected), StepError>>);

impl Preconnecting {
    /// Starts to open the session that the first worker of this operation will use.
    pub(super) fn start(stores: OperationContext, intent: &Intent, tenant: TenantId) -> Self {
        let (lane, name) = (intent.lane, super::session_name(intent.id, 1));
        let open = async move {
            let none = || StepError::fail("the tenant has no placement on a server");
            let server = stores.find_location(tenant).await?.ok_or_else(none)?.server;
            let preconnected = stores.open(tenant, lane, name, server.clone()).await?;
            Ok((server, preconnected))
        };
        Self(AbortOnDropHandle::new(tokio::spawn(open.in_current_span())))
    }
    /// Waits for the session. `None` if the server's row has changed since the task has read it: that was before the
    /// intent was committed, and a relocation stops only operations whose intent is committed.
    ///
    /// # Errors
    /// Those of opening the session. A panic of the task is an error that is retried.
    pub(super) async fn wait(self, server: &DatabaseServer) -> Result<Option<Preconnected>, StepError> {
        let (opened_with, preconnected) = self.0.await.unwrap_or_else(|panic| Err(StepError::retry(panic)))?;
        Ok((opened_with == *server).then_some(preconnected))
    }
}
