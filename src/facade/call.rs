//! [`Call`]: one verb with its options, before and while it runs.
//!
//! Each verb of [`Tenantry`] returns a `Call`. The application sets options on it and then awaits it or calls `start`.
//!
//! Invariants:
//! - Nothing happens before the intent is committed.
//! - After that the operation runs in a task of the facade, whether or not the caller's future still exists.
use super::Tenantry;
use super::verbs::CallVerb;
use crate::operation::{OperationEvent, OperationId};
use crate::operations::provision::Provision;
use crate::saga::Observer;
use crate::store::journal::Begun;
use futures_core::future::BoxFuture;
use serde::Serialize;
use std::{fmt::Display, future::IntoFuture, pin::pin, sync::Arc};
use tokio::sync::Notify;

/// One verb with its options. Its setters cannot fail. Await it for the result of the operation, or call
/// [`start`](Self::start) for its id.
///
/// # Cancel safety
/// A future that is dropped before the intent is committed has no effect. After the commit the operation runs in a task
/// of the facade, and dropping the future only stops waiting for it.
#[must_use = "a call does nothing until it is awaited or started"]
pub struct Call<V: CallVerb> {
    tenantry: Tenantry,
    pub(super) verb: V,
    key: Option<String>,
    reason: Option<String>,
    observer: Observer,
}

impl<V: CallVerb> Call<V> {
    pub(super) fn new(tenantry: &Tenantry, verb: V) -> Self {
        Self { tenantry: tenantry.clone(), verb, key: None, reason: None, observer: Observer::none() }
    }
    /// The caller's idempotency key. A second call with the same key and the same request joins the operation of the
    /// first one. A call with the same key and another request fails with `KeyReused`. If the operation was undone, the
    /// key can be used for a new one.
    pub fn key(mut self, key: impl Display) -> Self {
        self.key = Some(key.to_string());
        self
    }
    /// Reason for the call and the person or job that makes it. It is stored in the operation's history, so it must not
    /// contain a secret.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
    /// Called with each event of the operation, in the task that drives it, so it must not block. To read the events on
    /// another node, use `operations().events(id, 0)`.
    pub fn on_event(mut self, callback: impl Fn(&OperationEvent) + Send + Sync + 'static) -> Self {
        self.observer = Observer::new(callback);
        self
    }
    /// Commits the intent and returns the operation's id. A task of the facade drives the operation.
    pub async fn start(self) -> Result<OperationId, V::Error> {
        if self.tenantry.is_closed() {
            return Err(V::closed_error());
        }
        match self.verb.begin(&self.tenantry, self.key, self.reason).await? {
            Begun::New(record) => {
                let id = record.id;
                drop(self.tenantry.launch(*record, self.observer));
                Ok(id)
            }
            Begun::Joined(record) => Ok(record.id),
            Begun::KeyReused(id) | Begun::Busy(id) => Err(V::busy_error(id)),
        }
    }

    async fn run(self) -> Result<V::Answer, V::Error> {
        if self.tenantry.is_closed() {
            return Err(V::closed_error());
        }
        let interim = Arc::new(Notify::new());
        let observer = notify_at_interim::<V>(self.observer, interim.clone());
        let (id, started) = match self.verb.begin(&self.tenantry, self.key, self.reason).await? {
            Begun::New(record) => (record.id, Some(self.tenantry.launch(*record, observer.clone()))),
            Begun::Joined(record) => (record.id, None),
            Begun::KeyReused(id) | Begun::Busy(id) => return Err(V::busy_error(id)),
        };
        let mut end = pin!(self.tenantry.watch(id, started, &observer));
        tokio::select! {
            biased;
            outcome = &mut end => return V::answer(&self.tenantry, outcome?).await,
            () = interim.notified() => {}
        }
        match V::read_interim(&self.tenantry, id).await? {
            Some(answer) => Ok(answer),
            None => V::answer(&self.tenantry, end.await?).await,
        }
    }
}

/// Wraps an observer so that it also notifies `interim` when the verb's interim step has succeeded.
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

impl Call<Provision> {
    fn with(mut self, set: impl FnOnce(Provision) -> Provision) -> Self {
        self.verb = set(std::mem::take(&mut self.verb));
        self
    }
    /// Display name of the tenant; the slug if none is given.
    pub fn name(self, name: impl Into<String>) -> Self {
        self.with(|p| p.name(name))
    }
    /// E-mail address of the tenant's first admin. The operation adds the admin to the tenant's user table and issues a
    /// setup link for the address.
    pub fn admin(self, email: impl Into<String>) -> Self {
        self.with(|p| p.admin(email))
    }
    /// A domain that identifies the tenant, besides its slug.
    pub fn domain(self, domain: impl Into<String>) -> Self {
        self.with(|p| p.domain(domain))
    }
    /// JSON that the registry stores with the tenant. It must not contain a secret.
    pub fn metadata(self, metadata: serde_json::Value) -> Self {
        self.with(|p| p.metadata(metadata))
    }
    /// Input for the application's own steps of this operation. It is stored in the journal, so it must not contain a
    /// secret.
    pub fn input<T: Serialize>(self, input: &T) -> Self {
        self.with(|p| p.input(input))
    }
    /// Name of the server for the tenant's database, in place of the choice of the placement function.
    pub fn server(self, name: impl Into<String>) -> Self {
        self.with(|p| p.server(name))
    }
}
