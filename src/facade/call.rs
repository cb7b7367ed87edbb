//! [`Call`]: one call of an operation with its options, before and while it runs.
//!
//! Each method of [`Tenantry`] that begins an operation returns a `Call`. The application sets options on it and then
//! awaits it or calls `start`.
//!
//! Invariants:
//! - Nothing happens before the intent is committed.
//! - After that the operation runs in a task of the facade, whether or not the caller's future still exists.
use super::Tenantry;
use crate::operation::{OperationEvent, OperationId};
use crate::operations::verb::CallVerb;
use crate::saga::{CallOptions, Observer};
use futures_core::future::BoxFuture;
use std::{fmt::Display, future::IntoFuture, pin::pin, sync::Arc};
use tokio::sync::Notify;

/// One call of an operation with its options. Its setters cannot fail. Await it for the result of the operation, or
/// call [`start`](Self::start) for its id.
///
/// # Cancel safety
/// A future that is dropped before the intent is committed has no effect. After the commit the operation runs in a task
/// of the facade, and dropping the future only stops waiting for it.
#[must_use = "a call does nothing until it is awaited or started"]
pub struct Call<V: CallVerb> {
    tenantry: Tenantry,
    driver: V::Driver,
    pub(super) verb: V,
    options: CallOptions,
}

impl<V: CallVerb> Call<V> {
    pub(super) fn new(tenantry: &Tenantry, driver: &V::Driver, verb: V) -> Self {
        Self { tenantry: tenantry.clone(), driver: driver.clone(), verb, options: CallOptions::new() }
    }
    fn with(mut self, set: impl FnOnce(CallOptions) -> CallOptions) -> Self {
        self.options = set(self.options);
        self
    }
    /// The caller's idempotency key. A second call with the same key and the same request joins the operation of the
    /// first one. A call with the same key and another request fails with `KeyReused`. If the operation was undone, the
    /// key can be used for a new one. A key has 1 to 200 bytes and no NUL; another one fails the call as `Invalid`.
    /// Requests are compared as JSON, so the notation of a number does not matter.
    pub fn key(self, key: impl Display) -> Self {
        self.with(|options| options.key(key))
    }
    /// Reason for the call and the person or job that makes it. It is stored in the operation's history, so it must not
    /// contain a secret. A reason has at most 4096 bytes and no NUL; another one fails the call as `Invalid`.
    pub fn reason(self, reason: impl Into<String>) -> Self {
        self.with(|options| options.reason(reason))
    }
    /// Called with each event of the operation, in the task that drives it, so it must not block. To read the events on
    /// another node, use `operations().events(id, 0)`.
    pub fn on_event(self, callback: impl Fn(&OperationEvent) + Send + Sync + 'static) -> Self {
        self.with(|options| options.on_event(callback))
    }
    /// Commits the intent and returns the operation's id. A task of the facade drives the operation.
    pub async fn start(self) -> Result<OperationId, V::Error> {
        let started = self.verb.begin(&self.driver, &self.options).await?;
        let id = started.id();
        drop(self.tenantry.launch(started, self.options.observer));
        Ok(id)
    }

    async fn run(self) -> Result<V::Answer, V::Error> {
        let Self { tenantry, driver, verb, options } = self;
        let started = verb.begin(&driver, &options).await?;
        let interim = Arc::new(Notify::new());
        let observer = notify_at_interim::<V>(options.observer, interim.clone());
        let id = started.id();
        let launched = tenantry.launch(started, observer.clone());
        let mut end = pin!(tenantry.watch(id, launched, &observer));
        tokio::select! {
            biased;
            outcome = &mut end => return V::answer(&driver, outcome?).await,
            () = interim.notified() => {}
        }
        match V::read_interim(&driver, id).await? {
            Some(answer) => Ok(answer),
            None => V::answer(&driver, end.await?).await,
        }
    }
}

/// Wraps an observer so that it also notifies `interim` when the operation's interim step has succeeded.
fn notify_at_interim<V: CallVerb>(observer: Observer, interim: Arc<Notify>) -> Observer {
    let Some(step) = V::INTERIM else { return observer };
    Observer::new(move |event| {
        observer.notify(event);
        if event.step == step && event.error.is_none() {
            interim.notify_one();
        }
    })
}

impl<V: CallVerb> IntoFuture for Call<V> {
    type Output = Result<V::Answer, V::Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
