//! A worker's session is opened while the intent of its operation is still on its way to the disk: without a lock and
//! before the worker's first check it does nothing.
use super::hold::Opened;
use super::{Place, Workshop};
use crate::error::{ChangeError, StepError};
use crate::operation::OperationId;
use crate::saga::{Begun, Intent};
use crate::tenant::TenantId;
use futures_util::future::{BoxFuture, FutureExt, MaybeDone, maybe_done};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::Context;
use std::time::{Duration, Instant};

/// A driver asks for it at once.
const UNASKED: Duration = Duration::from_secs(60);

/// On its way. Dropping it closes what is open. Nobody ever waits for the mutex: it makes a shared reference harmless.
pub(crate) struct Opening(Mutex<Way>, Instant);
type Way = MaybeDone<BoxFuture<'static, Result<(Place, Opened), StepError>>>;

impl Opening {
    fn new(shop: Workshop, intent: &Intent, tenant: TenantId) -> Self {
        let (lane, name) = (intent.lane, super::session_name(intent.id, 1));
        let open = async move {
            let none = || StepError::fail("the tenant has no place");
            let place = shop.place(tenant).await?.ok_or_else(none)?;
            let opened = shop.open(tenant, lane, name, place.server.clone()).await?;
            Ok((place, opened))
        };
        Self(Mutex::new(maybe_done(open.boxed())), Instant::now())
    }
    /// Where the tenant is, and the session.
    pub(super) async fn done(self) -> Result<(Place, Opened), StepError> {
        let mut way = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        (&mut way).await;
        Pin::new(&mut way).take_output().unwrap_or_else(|| Err(StepError::retry("no session")))
    }
    fn go_on(&mut self, cx: &mut Context<'_>) {
        let way = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = Pin::new(way).poll(cx);
    }
}

impl Workshop {
    /// As [`begin`](Self::begin), for a tenant that has its place. Whoever gets `New` is to drive it at once: until its
    /// first world is made the session has a place among this process's workers.
    pub(crate) async fn begin_opening(&self, intent: &Intent) -> Result<Begun, ChangeError> {
        let Some(tenant) = intent.subject.tenant() else { return self.begin(intent).await };
        let mut opening = Opening::new(self.clone(), intent, tenant);
        let mut begin = pin!(self.begin(intent));
        let begun = poll_fn(|cx| {
            opening.go_on(cx);
            begin.as_mut().poll(cx)
        });
        let begun = begun.await?;
        if let (Begun::New(record), Ok(mut openings)) = (&begun, self.openings.lock()) {
            // Whose driver was dropped before it made a world: nobody asks for it any more.
            openings.retain(|_, left| left.1.elapsed() < UNASKED);
            openings.insert(record.id, opening);
        }
        Ok(begun)
    }
    /// What was opened for this operation, once.
    pub(super) fn opening(&self, operation: OperationId) -> Option<Opening> {
        self.openings.lock().ok()?.remove(&operation)
    }
}
