//! A worker's session is opened while the intent of its operation is still on its way to the disk: without a lock and
//! before the worker's first check it does nothing.
use super::hold::Opened;
use super::{Fresh, Place, Workshop};
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
pub(crate) struct Opening {
    opened: AbortOnDropHandle<Result<(Place, Opened), StepError>>,
    place: Arc<OnceLock<Place>>,
    fresh: Option<Fresh>,
    since: Instant,
}

impl Opening {
    fn new(shop: Workshop, intent: &Intent, tenant: TenantId) -> Self {
        let (lane, name) = (intent.lane, super::session_name(intent.id, 1));
        let place = Arc::new(OnceLock::new());
        let known = place.clone();
        let open = async move {
            let none = || StepError::fail("the tenant has no place");
            let place = shop.place(tenant).await?.ok_or_else(none)?;
            let place = known.get_or_init(|| place);
            let opened = shop.open(tenant, lane, name, place.server.clone()).await?;
            Ok((place.clone(), opened))
        };
        let opened = AbortOnDropHandle::new(tokio::spawn(open.in_current_span()));
        Self { opened, place, fresh: Some(Fresh::new()), since: Instant::now() }
    }
    /// Where the tenant is, if that is known by now.
    pub(super) fn place(&self) -> Option<&Place> {
        self.place.get()
    }
    /// A password that nobody has yet, once.
    pub(super) fn fresh(&mut self) -> Option<Fresh> {
        self.fresh.take()
    }
    /// Where the tenant is, and the session.
    pub(super) async fn done(self) -> Result<(Place, Opened), StepError> {
        self.opened.await.unwrap_or_else(|died| Err(StepError::retry(died)))
    }
}

impl Workshop {
    /// As [`begin`](Self::begin), for a tenant that has its place. Whoever gets `New` is to drive it at once: until its
    /// first world is made the session has a place among this process's workers.
    pub(crate) async fn begin_opening(&self, intent: &Intent) -> Result<Begun, ChangeError> {
        let Some(tenant) = intent.subject.tenant() else { return self.begin(intent).await };
        let opening = Opening::new(self.clone(), intent, tenant);
        let begun = self.begin(intent).await?;
        if let (Begun::New(record), Ok(mut openings)) = (&begun, self.openings.lock()) {
            // Whose driver was dropped before it made a world: nobody asks for it any more.
            openings.retain(|_, left| left.since.elapsed() < UNASKED);
            openings.insert(record.id, opening);
        }
        Ok(begun)
    }
    /// What nobody has asked for.
    pub(crate) fn drop_openings(&self) {
        if let Ok(mut openings) = self.openings.lock() {
            openings.clear();
        }
    }
    /// What was opened for this operation, once.
    pub(super) fn opening(&self, operation: OperationId) -> Option<Opening> {
        self.openings.lock().ok()?.remove(&operation)
    }
}
