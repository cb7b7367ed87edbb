//! Opening a worker's session while the intent of its operation is still being committed, to save the time of the
//! login.
//!
//! An operation begins with [`begin_and_preconnect`](OperationContext::begin_and_preconnect); its [`TenantSessions`]
//! takes the session over. Until then the session has no lock and runs no statement, so opening it early is harmless.
//!
//! [`TenantSessions`]: super::TenantSessions
use super::locked_session::Preconnected;
use super::{Fresh, OperationContext, TenantLocation};
use crate::error::{ChangeError, StepError};
use crate::operation::OperationId;
use crate::store::journal::{Begun, Intent};
use crate::tenant::TenantId;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// How long a preconnected session is kept for the runner of its operation, which normally takes it at once.
const UNCLAIMED_LIMIT: Duration = Duration::from_secs(60);

/// A session that a spawned task is opening, so that the login does not delay the commit of the intent. Dropping this
/// aborts the task and closes the session.
pub(crate) struct Preconnecting {
    task: AbortOnDropHandle<Result<(TenantLocation, Preconnected), StepError>>,
    location: Arc<OnceLock<TenantLocation>>,
    password: Option<Fresh>,
    since: Instant,
}

impl Preconnecting {
    fn new(stores: OperationContext, intent: &Intent, tenant: TenantId) -> Self {
        let (lane, name) = (intent.lane, super::session_name(intent.id, 1));
        let location = Arc::new(OnceLock::new());
        let found_location = location.clone();
        let open = async move {
            let none = || StepError::fail("the tenant has no placement on a server");
            let location = stores.place(tenant).await?.ok_or_else(none)?;
            let location = found_location.get_or_init(|| location);
            let preconnected = stores.open(tenant, lane, name, location.server.clone()).await?;
            Ok((location.clone(), preconnected))
        };
        let task = AbortOnDropHandle::new(tokio::spawn(open.in_current_span()));
        Self { task, location, password: Some(Fresh::new()), since: Instant::now() }
    }
    /// The tenant's location, if the task has read it already.
    pub(super) fn location(&self) -> Option<&TenantLocation> {
        self.location.get()
    }
    /// Takes the password that was generated in advance; `None` after the first call.
    pub(super) fn take_password(&mut self) -> Option<Fresh> {
        self.password.take()
    }
    /// Waits for the session; returns it with the tenant's location. A panic of the task is an error that is retried.
    pub(super) async fn wait(self) -> Result<(TenantLocation, Preconnected), StepError> {
        self.task.await.unwrap_or_else(|join_error| Err(StepError::retry(join_error)))
    }
}

impl OperationContext {
    /// As [`begin`](Self::begin), for a tenant that has a placement, and opens a session at the same time. A caller
    /// that gets `New` must run the operation at once: until the operation creates its
    /// [`TenantSessions`](super::TenantSessions), the session occupies a worker permit of this process.
    pub(crate) async fn begin_and_preconnect(&self, intent: &Intent) -> Result<Begun, ChangeError> {
        let Some(tenant) = intent.subject.tenant() else { return self.begin(intent).await };
        let preconnecting = Preconnecting::new(self.clone(), intent, tenant);
        let begun = self.begin(intent).await?;
        if let (Begun::New(record), Ok(mut preconnecting_by_operation)) =
            (&begun, self.preconnecting_by_operation.lock())
        {
            // A caller that was dropped before it ran its operation never takes its session; without this the session
            // would keep its permit forever.
            preconnecting_by_operation.retain(|_, unclaimed| unclaimed.since.elapsed() < UNCLAIMED_LIMIT);
            preconnecting_by_operation.insert(record.id, preconnecting);
        }
        Ok(begun)
    }
    /// Closes all preconnected sessions that no operation has taken.
    pub(crate) fn drop_preconnected(&self) {
        if let Ok(mut preconnecting_by_operation) = self.preconnecting_by_operation.lock() {
            preconnecting_by_operation.clear();
        }
    }
    /// Takes the session that was opened for this operation; `None` if there is none or it was taken before.
    pub(super) fn take_preconnecting(&self, operation: OperationId) -> Option<Preconnecting> {
        self.preconnecting_by_operation.lock().ok()?.remove(&operation)
    }
}
