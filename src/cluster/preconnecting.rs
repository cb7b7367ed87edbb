//! A worker's session is opened while the intent of its operation is still on its way to the disk: without a lock and
//! before the worker's first check it does nothing.
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

/// A driver asks for it at once.
const UNASKED: Duration = Duration::from_secs(60);

/// On its way, in a task that ends with it: the milliseconds that a login takes its client delay nothing else. Dropping it
/// closes what is open.
pub(crate) struct Preconnecting {
    opened: AbortOnDropHandle<Result<(TenantLocation, Preconnected), StepError>>,
    place: Arc<OnceLock<TenantLocation>>,
    fresh: Option<Fresh>,
    since: Instant,
}

impl Preconnecting {
    fn new(stores: OperationContext, intent: &Intent, tenant: TenantId) -> Self {
        let (lane, name) = (intent.lane, super::session_name(intent.id, 1));
        let place = Arc::new(OnceLock::new());
        let known = place.clone();
        let open = async move {
            let none = || StepError::fail("the tenant has no place");
            let place = stores.place(tenant).await?.ok_or_else(none)?;
            let place = known.get_or_init(|| place);
            let opened = stores.open(tenant, lane, name, place.server.clone()).await?;
            Ok((place.clone(), opened))
        };
        let opened = AbortOnDropHandle::new(tokio::spawn(open.in_current_span()));
        Self { opened, place, fresh: Some(Fresh::new()), since: Instant::now() }
    }
    /// Where the tenant is, if that is known by now.
    pub(super) fn place(&self) -> Option<&TenantLocation> {
        self.place.get()
    }
    /// A password that nobody has yet, once.
    pub(super) fn fresh(&mut self) -> Option<Fresh> {
        self.fresh.take()
    }
    /// Where the tenant is, and the session.
    pub(super) async fn done(self) -> Result<(TenantLocation, Preconnected), StepError> {
        self.opened.await.unwrap_or_else(|died| Err(StepError::retry(died)))
    }
}

impl OperationContext {
    /// As [`begin`](Self::begin), for a tenant that has its place. Whoever gets `New` is to drive it at once: until its
    /// first world is made the session has a place among this process's workers.
    pub(crate) async fn begin_and_preconnect(&self, intent: &Intent) -> Result<Begun, ChangeError> {
        let Some(tenant) = intent.subject.tenant() else { return self.begin(intent).await };
        let preconnecting = Preconnecting::new(self.clone(), intent, tenant);
        let begun = self.begin(intent).await?;
        if let (Begun::New(record), Ok(mut preconnecting_by_operation)) =
            (&begun, self.preconnecting_by_operation.lock())
        {
            // Whose driver was dropped before it made a world: nobody asks for it any more.
            preconnecting_by_operation.retain(|_, left| left.since.elapsed() < UNASKED);
            preconnecting_by_operation.insert(record.id, preconnecting);
        }
        Ok(begun)
    }
    /// What nobody has asked for.
    pub(crate) fn drop_preconnected(&self) {
        if let Ok(mut preconnecting_by_operation) = self.preconnecting_by_operation.lock() {
            preconnecting_by_operation.clear();
        }
    }
    /// What was opened for this operation, once.
    pub(super) fn preconnecting(&self, operation: OperationId) -> Option<Preconnecting> {
        self.preconnecting_by_operation.lock().ok()?.remove(&operation)
    }
}
