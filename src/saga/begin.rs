//! Beginning an operation: what the caller attaches to it, and the handle by which it is driven.
//!
//! The module of an operation calls [`Engine::begin`](super::Engine::begin) and gets a [`Started`]. The facade drives a
//! new operation in a task of its own; the typed saga is bound to it from the beginning.
use super::{Engine, Execution, Observer, Outcome, Saga, runner};
use crate::error::StoreError;
use crate::operation::{OperationEvent, OperationId};
use crate::store::journal::{Journal, Record};
use serde_json::{Map, Value};
use std::{fmt, future::Future, pin::Pin, sync::Arc};
use uuid::Uuid;

/// What a caller attaches to any operation: its idempotency key, its reason and an observer of its events.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    pub(crate) key: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) observer: Observer,
    /// What the operation repairs. It is stored with the request, see [`CAUSE`].
    pub(crate) cause: Option<Value>,
}

/// Key in the stored request of an operation that the doctor has begun. Its value is what it repairs. No request of an
/// operation has a field of this name.
pub(crate) const CAUSE: &str = "$repairs";

impl CallOptions {
    /// No key, no reason and no observer.
    pub fn new() -> Self {
        Self::default()
    }
    /// Sets the idempotency key. A second call with the same key and the same request joins the operation of the first
    /// one. A call with the same key and another request fails with `KeyReused`. If the operation was undone, the key
    /// can be used for a new one. A key has 1 to 200 bytes and no NUL; another one fails the call as `Invalid`.
    pub fn key(mut self, key: impl fmt::Display) -> Self {
        self.key = Some(separate_from_own_keys(key.to_string()));
        self
    }
    /// Sets the key of the operation that follows this setup link. No key of a caller is ever equal to it.
    pub(crate) fn link_key(mut self, link: Uuid) -> Self {
        self.key = Some(format!("{LINK_KEY}{link}"));
        self
    }
    /// Sets the reason for the call and the person or job that makes it. It is stored in the operation's history, so it
    /// must not contain a secret. A reason has at most 4096 bytes and no NUL; another one fails the call as `Invalid`.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
    /// Sets what the operation repairs: a finding, so the state before.
    pub(crate) fn cause(mut self, cause: Value) -> Self {
        self.cause = Some(cause);
        self
    }
    /// Calls `callback` with each event that a worker of this process writes, in the task that drives the operation, so
    /// it must not block.
    pub fn on_event(mut self, callback: impl Fn(&OperationEvent) + Send + Sync + 'static) -> Self {
        self.observer = Observer::new(callback);
        self
    }
}

/// Adds what an operation repairs to its stored request.
pub(super) fn with_cause(request: Value, cause: Option<&Value>) -> Value {
    let Some(cause) = cause else { return request };
    let mut fields = match request {
        Value::Object(fields) => fields,
        Value::Null => Map::new(),
        other => return other,
    };
    fields.insert(CAUSE.into(), cause.clone());
    Value::Object(fields)
}

/// How the keys of setup links begin. The journal holds such keys, so it must not change.
const LINK_KEY: &str = "setup/";
/// What is put before a caller's key that would be equal to a key of this crate.
const CALLER: &str = "caller/";

/// Maps a caller's key to the one that is stored. With the key of a setup link's operation, a caller could make that
/// link fail with `KeyReused`, or join its operation. Different keys stay different, and every other key is stored as
/// it is, so that it joins an operation that an earlier version has begun.
fn separate_from_own_keys(key: String) -> String {
    let rest = key.strip_prefix(CALLER).map(|rest| rest.trim_start_matches(CALLER)).unwrap_or(&key);
    let is_own = rest.strip_prefix(LINK_KEY).is_some_and(|id| id.parse::<Uuid>().is_ok());
    if is_own { format!("{CALLER}{key}") } else { key }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_of_a_caller_never_equals_a_key_of_a_setup_link_and_different_keys_stay_different() {
        let link = Uuid::now_v7();
        let own = CallOptions::new().link_key(link).key;
        assert_eq!(own, Some(format!("setup/{link}")), "the key of an operation that an earlier version has begun");
        let similar = [format!("setup/{link}"), format!("caller/setup/{link}"), format!("caller/caller/setup/{link}")];
        let mut stored: Vec<_> = similar.iter().map(|key| CallOptions::new().key(key).key).collect();
        assert!(!stored.contains(&own), "a caller's key is equal to the key of a link's operation: {stored:?}");
        stored.dedup();
        assert_eq!(stored.len(), 3, "two different keys are stored as one: {stored:?}");
        for plain in ["order-7", "setup/7", "caller/7", "setup/"] {
            assert_eq!(CallOptions::new().key(plain).key.as_deref(), Some(plain), "a key that joins older operations");
        }
    }
}
