//! A journal that does not answer for a while, or only when a test lets it.
use async_trait::async_trait;
use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::error::StoreError;
use tenantry::journal::{Begun, Claim, Intent, Journal, Progress, Record};
use tenantry::operation::{FencingToken, OperationEvent, OperationId, Subject};
use tokio::sync::Notify;

/// What becomes of a call that gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It never arrived.
    Call,
    /// It was done.
    Answer,
    /// Nothing: it arrives when the test says so.
    Nothing,
}

/// Calls that meet silence, counted from 1.
#[derive(Clone, Debug)]
pub(crate) struct Outage {
    pub(crate) calls: Range<u32>,
    pub(crate) lost: Lost,
    /// Only calls of this name count; else all but signs of life, which come by the clock: how many there are says how
    /// fast the machine is.
    pub(crate) only: Option<&'static str>,
}
impl Outage {
    pub(crate) fn none() -> Self {
        Self::of(0..0, Lost::Call)
    }
    pub(crate) fn of(calls: Range<u32>, lost: Lost) -> Self {
        Self { calls, lost, only: None }
    }
    pub(crate) fn only(self, name: &'static str) -> Self {
        Self { only: Some(name), ..self }
    }
}

pub(crate) struct Failing {
    pub(crate) inner: Arc<dyn Journal>,
    outage: Outage,
    calls: AtomicU32,
    /// The calls that were hit, by name.
    hit: Mutex<Vec<&'static str>>,
    /// What was recorded: of which step, and whether that was waited for on the disk.
    recorded: Mutex<Vec<(String, bool)>>,
    arrived: Notify,
    released: Notify,
}

impl Failing {
    pub(crate) fn new(inner: Arc<dyn Journal>, outage: Outage) -> Arc<Self> {
        Arc::new(Self {
            inner,
            outage,
            calls: AtomicU32::new(0),
            hit: Mutex::default(),
            recorded: Mutex::default(),
            arrived: Notify::new(),
            released: Notify::new(),
        })
    }
    pub(crate) fn calls(&self) -> u32 {
        self.calls.load(SeqCst)
    }
    pub(crate) fn hit(&self) -> Vec<&'static str> {
        self.hit.lock().unwrap().clone()
    }
    pub(crate) fn recorded(&self) -> Vec<(String, bool)> {
        self.recorded.lock().unwrap().clone()
    }
    /// Returns when a call waits to be let through.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }
    pub(crate) fn let_through(&self) {
        self.released.notify_one();
    }
    async fn through<T>(
        &self, name: &'static str, call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let counts = self.outage.only.map_or(name != "renew", |only| only == name);
        if !counts || !self.outage.calls.contains(&(self.calls.fetch_add(1, SeqCst) + 1)) {
            return call.await;
        }
        self.hit.lock().unwrap().push(name);
        match self.outage.lost {
            Lost::Call => Err(StoreError::unavailable("the call is lost")),
            Lost::Answer => call.await.and(Err(StoreError::unavailable("the answer is lost"))),
            Lost::Nothing => {
                self.arrived.notify_one();
                self.released.notified().await;
                call.await
            }
        }
    }
}

#[async_trait]
impl Journal for Failing {
    async fn begin(&self, intent: &Intent) -> Result<Begun, StoreError> {
        self.through("begin", self.inner.begin(intent)).await
    }
    async fn joined(&self, intent: &Intent) -> Result<Option<Begun>, StoreError> {
        self.through("joined", self.inner.joined(intent)).await
    }
    async fn now(&self) -> Result<time::OffsetDateTime, StoreError> {
        self.through("now", self.inner.now()).await
    }
    async fn read(&self, id: OperationId) -> Result<Option<Record>, StoreError> {
        self.through("read", self.inner.read(id)).await
    }
    async fn claim(&self, id: OperationId, worker: &str, lease: Duration) -> Result<Claim, StoreError> {
        self.through("claim", self.inner.claim(id, worker, lease)).await
    }
    async fn renew(&self, writer: FencingToken, lease: Duration) -> Result<(), StoreError> {
        self.through("renew", self.inner.renew(writer, lease)).await
    }
    async fn check(&self, writer: FencingToken) -> Result<(), StoreError> {
        self.through("check", self.inner.check(writer)).await
    }
    async fn record(&self, writer: FencingToken, progress: &Progress) -> Result<OperationEvent, StoreError> {
        self.recorded.lock().unwrap().push((progress.step.to_string(), progress.durable));
        self.through("record", self.inner.record(writer, progress)).await
    }
    async fn park_change(&self, subject: &Subject, by: FencingToken) -> Result<Option<Record>, StoreError> {
        self.through("park_change", self.inner.park_change(subject, by)).await
    }
    async fn abandon_change(&self, subject: &Subject, by: FencingToken) -> Result<(), StoreError> {
        self.through("abandon_change", self.inner.abandon_change(subject, by)).await
    }
    async fn unpark(&self, id: OperationId, undo: bool) -> Result<Record, StoreError> {
        self.through("unpark", self.inner.unpark(id, undo)).await
    }
    async fn open(&self) -> Result<Vec<Record>, StoreError> {
        self.through("open", self.inner.open()).await
    }
    async fn due(&self, limit: u32) -> Result<Vec<OperationId>, StoreError> {
        self.through("due", self.inner.due(limit)).await
    }
    async fn events(&self, id: OperationId, after: i64, limit: u32) -> Result<Vec<OperationEvent>, StoreError> {
        self.through("events", self.inner.events(id, after, limit)).await
    }
    async fn history(&self, subject: &Subject) -> Result<Vec<Record>, StoreError> {
        self.through("history", self.inner.history(subject)).await
    }
}
