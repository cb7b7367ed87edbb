//! Beginning an operation: what the caller attaches to it, and the handle by which it is driven.
//!
//! The module of an operation calls [`Engine::begin`](super::Engine::begin) and gets a [`Started`]. The facade drives a
//! new operation in a task of its own; the typed saga is bound to it from the beginning.
use super::{Engine, Execution, Observer, Outcome, Saga, runner};
use crate::error::StoreError;
use crate::operation::{OperationEvent, OperationId};
use crate::store::journal::{Journal, Record};
use std::{fmt, future::Future, pin::Pin, sync::Arc};

/// What a caller attaches to any operation: its idempotency key, its reason and an observer of its events.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    pub(crate) key: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) observer: Observer,
}

impl CallOptions {
    /// No key, no reason and no observer.
    pub fn new() -> Self {
        Self::default()
    }
    /// Sets the idempotency key. A second call with the same key and the same request joins the operation of the first
    /// one. A call with the same key and another request fails with `KeyReused`. If the operation was undone, the key
    /// can be used for a new one.
    pub fn key(mut self, key: impl fmt::Display) -> Self {
        self.key = Some(key.to_string());
        self
    }
    /// Sets the reason for the call and the person or job that makes it. It is stored in the operation's history, so it
    /// must not contain a secret.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
    /// Calls `callback` with each event that a worker of this process writes, in the task that drives the operation, so
    /// it must not block.
    pub fn on_event(mut self, callback: impl Fn(&OperationEvent) + Send + Sync + 'static) -> Self {
        self.observer = Observer::new(callback);
        self
    }
}

/// The result of beginning an operation.
#[derive(Debug)]
pub enum Started {
    /// The operation is new. This process has its lease and must drive it.
    New(NewOperation),
    /// An earlier call with the same key and the same request has begun this operation. Some worker drives it.
    Joined(Box<Record>),
}

impl Started {
    /// Id of the operation.
    pub fn id(&self) -> OperationId {
        match self {
            Self::New(operation) => operation.record.id,
            Self::Joined(record) => record.id,
        }
    }
}

type Driven<'a> = Pin<Box<dyn Future<Output = Result<Outcome, StoreError>> + Send + 'a>>;
type Drive = Box<dyn for<'a> FnOnce(&'a Engine, Execution, &'a Observer) -> Driven<'a> + Send>;

/// An operation that this process has begun, bound to its saga. If it is dropped without being driven, recovery
/// continues the operation after its lease.
pub struct NewOperation {
    record: Box<Record>,
    drive: Drive,
}

impl NewOperation {
    /// Binds an operation to its saga. `context` is the first worker's state, if the caller has prepared one; otherwise
    /// the saga makes it.
    pub fn new<C: Send + 'static>(saga: Arc<Saga<C>>, record: Box<Record>, context: Option<C>) -> Self {
        let drive: Drive = Box::new(move |engine, run, observer| {
            Box::pin(async move { runner::drive(engine, &*saga, run, context, observer).await })
        });
        Self { record, drive }
    }
    /// The operation's record, as it was committed.
    pub fn record(&self) -> &Record {
        &self.record
    }
    /// Drives the operation until it ends, waits for a retry, is parked or is taken over. `observer` is called with
    /// each event that this worker writes.
    ///
    /// Dropping the future has the same effect as a crash of the worker: recovery continues after the lease expires.
    ///
    /// # Errors
    /// Fails only when the journal does not answer or refuses to claim the operation again. The outcome reports every
    /// other failure.
    pub async fn drive(self, engine: &Engine, observer: &Observer) -> Result<Outcome, StoreError> {
        let journal: Arc<dyn Journal> = engine.journal().clone();
        (self.drive)(engine, Execution::new(journal, *self.record, true), observer).await
    }
}

impl fmt::Debug for NewOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewOperation").field("id", &self.record.id).finish_non_exhaustive()
    }
}
