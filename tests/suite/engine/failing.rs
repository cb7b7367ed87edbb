//! A journal that does not answer for a while.
use async_trait::async_trait;
use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::error::StoreError;
use tenantry::operation::{OperationEvent, OperationId, Subject, Writer};
use tenantry::saga::{Begun, Claim, Intent, Journal, Progress, Record};

/// What becomes of a call that gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It never arrived.
    Call,
    /// It was done.
    Answer,
}

/// Calls that meet silence, counted from 1.
#[derive(Clone, Debug)]
pub(super) struct Outage {
    pub(super) calls: Range<u32>,
    pub(super) lost: Lost,
}
impl Outage {
    pub(super) fn none() -> Self {
        Self { calls: 0..0, lost: Lost::Call }
    }
}

pub(super) struct Failing {
    pub(super) inner: Arc<dyn Journal>,
    outage: Outage,
    calls: AtomicU32,
    /// The calls that were hit, by name.
    hit: Mutex<Vec<&'static str>>,
}

impl Failing {
    pub(super) fn new(inner: Arc<dyn Journal>, outage: Outage) -> Arc<Self> {
        Arc::new(Self { inner, outage, calls: AtomicU32::new(0), hit: Mutex::default() })
    }
    pub(super) fn calls(&self) -> u32 {
        self.calls.load(SeqCst)
    }
    pub(super) fn hit(&self) -> Vec<&'static str> {
        self.hit.lock().unwrap().clone()
    }
    async fn through<T>(
        &self, name: &'static str, call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let hit = self.outage.calls.contains(&(self.calls.fetch_add(1, SeqCst) + 1));
        if hit {
            self.hit.lock().unwrap().push(name);
        }
        if hit && self.outage.lost == Lost::Call {
            return Err(StoreError::unavailable("the call is lost"));
        }
        let answer = call.await?;
        if hit { Err(StoreError::unavailable("the answer is lost")) } else { Ok(answer) }
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
    async fn renew(&self, writer: Writer, lease: Duration) -> Result<(), StoreError> {
        self.through("renew", self.inner.renew(writer, lease)).await
    }
    async fn check(&self, writer: Writer) -> Result<(), StoreError> {
        self.through("check", self.inner.check(writer)).await
    }
    async fn record(&self, writer: Writer, progress: &Progress) -> Result<OperationEvent, StoreError> {
        self.through("record", self.inner.record(writer, progress)).await
    }
    async fn park_change(&self, subject: &Subject, by: Writer) -> Result<Option<Record>, StoreError> {
        self.through("park_change", self.inner.park_change(subject, by)).await
    }
    async fn abandon_change(&self, subject: &Subject, by: Writer) -> Result<(), StoreError> {
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
