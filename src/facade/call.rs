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

/// A verb on its way: setters that never fail, then `.await` (the answer) or `.start()` (the id at once).
///
/// # Cancel safety
/// Before the intent's commit nothing has happened. After it the operation runs in a task of the facade: dropping the
/// future only stops watching.
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
    /// The caller's idempotency key: same key and same request joins, another request is `KeyReused`. After an undo the
    /// key starts again.
    pub fn key(mut self, key: impl Display) -> Self {
        self.key = Some(key.to_string());
        self
    }
    /// Who and why, for the history; no secret.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
    /// Progress in this process, on the operation's task: it must not block. Elsewhere: `operations().events(id, 0)`.
    pub fn on_event(mut self, see: impl Fn(&OperationEvent) + Send + Sync + 'static) -> Self {
        self.observer = Observer::new(see);
        self
    }
    /// Commits the intent and returns; a task of the facade goes on with it.
    pub async fn start(self) -> Result<OperationId, V::Error> {
        if self.tenantry.is_closed() {
            return Err(V::closed());
        }
        match self.verb.begin(&self.tenantry, self.key, self.reason).await? {
            Begun::New(record) => {
                let id = record.id;
                drop(self.tenantry.launch(*record, self.observer));
                Ok(id)
            }
            Begun::Joined(record) => Ok(record.id),
            Begun::KeyReused(id) | Begun::Busy(id) => Err(V::busy(id)),
        }
    }

    async fn run(self) -> Result<V::Answer, V::Error> {
        if self.tenantry.is_closed() {
            return Err(V::closed());
        }
        let interim = Arc::new(Notify::new());
        let observer = notifying::<V>(self.observer, interim.clone());
        let (id, started) = match self.verb.begin(&self.tenantry, self.key, self.reason).await? {
            Begun::New(record) => (record.id, Some(self.tenantry.launch(*record, observer.clone()))),
            Begun::Joined(record) => (record.id, None),
            Begun::KeyReused(id) | Begun::Busy(id) => return Err(V::busy(id)),
        };
        let mut ended = pin!(self.tenantry.watch(id, started, &observer));
        tokio::select! {
            biased;
            outcome = &mut ended => return V::answer(&self.tenantry, outcome?).await,
            () = interim.notified() => {}
        }
        match V::interim(&self.tenantry, id).await? {
            Some(answer) => Ok(answer),
            None => V::answer(&self.tenantry, ended.await?).await,
        }
    }
}

/// Also says when the operation is where a caller may stop waiting.
fn notifying<V: CallVerb>(observer: Observer, interim: Arc<Notify>) -> Observer {
    let Some(step) = V::INTERIM else { return observer };
    Observer::new(move |event| {
        observer.see(event);
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
    /// Its display name; the slug if none is given.
    pub fn name(self, name: impl Into<String>) -> Self {
        self.with(|p| p.name(name))
    }
    /// First admin in the tenant's own users table, and a setup link for them.
    pub fn admin(self, email: impl Into<String>) -> Self {
        self.with(|p| p.admin(email))
    }
    /// A domain of its own.
    pub fn domain(self, domain: impl Into<String>) -> Self {
        self.with(|p| p.domain(domain))
    }
    /// Stays with the tenant; no secret.
    pub fn metadata(self, metadata: serde_json::Value) -> Self {
        self.with(|p| p.metadata(metadata))
    }
    /// For the host's steps of this operation; stored, so no secret.
    pub fn input<T: Serialize>(self, input: &T) -> Self {
        self.with(|p| p.input(input))
    }
    /// Overrides placement.
    pub fn server(self, name: impl Into<String>) -> Self {
        self.with(|p| p.server(name))
    }
}
