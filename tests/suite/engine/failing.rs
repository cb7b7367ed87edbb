//! A journal that loses chosen calls or their answers, or delays a call until a test releases it. Tests of workers and
//! of recovery use it in place of the journal that it wraps.
use async_trait::async_trait;
use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::error::{BeginError, Rows, StoreError};
use tenantry::journal::{Begun, Claim, Intent, Journal, Progress, Record};
use tenantry::operation::{FencingToken, LeaseHolder, OperationEvent, OperationId, Subject};
use time::OffsetDateTime;
use tokio::sync::Notify;

/// What happens to a journal call that an outage hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The journal never receives the call. The caller gets an error.
    Call,
    /// The journal executes the call. The caller gets an error.
    Answer,
    /// Nothing is lost: the call waits until the test releases it, and then succeeds.
    Nothing,
}

/// Which calls fail, and how.
#[derive(Clone, Debug)]
pub(crate) struct Outage {
    /// Numbers of the calls that are hit, counted from 1.
    pub(crate) calls: Range<u32>,
    /// What happens to these calls.
    pub(crate) lost: Lost,
    /// Name of the one method whose calls are counted. `None` counts all calls except `renew`, which runs on a timer:
    /// the number of its calls depends on the speed of the machine.
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

/// Passes every call to `inner`, except those that the outage hits.
pub(crate) struct Failing {
    pub(crate) inner: Arc<dyn Journal>,
    outage: Outage,
    calls: AtomicU32,
    /// Names of the calls that the outage hit.
    hit: Mutex<Vec<&'static str>>,
    /// Of each record, its step and whether the commit was durable.
    recorded: Mutex<Vec<(String, bool)>>,
    delayed: Notify,
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
            delayed: Notify::new(),
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
    /// Waits until a call is delayed.
    pub(crate) async fn wait_for_delayed_call(&self) {
        self.delayed.notified().await;
    }
    /// Releases the delayed call.
    pub(crate) fn release(&self) {
        self.released.notify_one();
    }
    async fn intercept<T, E: From<StoreError>>(
        &self, name: &'static str, call: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        let counts = self.outage.only.map_or(name != "renew", |only| only == name);
        if !counts || !self.outage.calls.contains(&(self.calls.fetch_add(1, SeqCst) + 1)) {
            return call.await;
        }
        self.hit.lock().unwrap().push(name);
        match self.outage.lost {
            Lost::Call => Err(StoreError::unavailable("the call is lost").into()),
            Lost::Answer => call.await.and(Err(StoreError::unavailable("the answer is lost").into())),
            Lost::Nothing => {
                self.delayed.notify_one();
                self.released.notified().await;
                call.await
            }
        }
    }
}

#[async_trait]
impl Journal for Failing {
    async fn begin(&self, intent: &Intent) -> Result<Begun, BeginError> {
        self.intercept("begin", self.inner.begin(intent)).await
    }
    async fn find_joined(&self, intent: &Intent) -> Result<Option<Record>, BeginError> {
        self.intercept("joined", self.inner.find_joined(intent)).await
    }
    async fn now(&self) -> Result<time::OffsetDateTime, StoreError> {
        self.intercept("now", self.inner.now()).await
    }
    async fn read(&self, id: OperationId) -> Result<Option<Record>, StoreError> {
        self.intercept("read", self.inner.read(id)).await
    }
    async fn claim(&self, id: OperationId, worker: &str, lease: Duration) -> Result<Claim, StoreError> {
        self.intercept("claim", self.inner.claim(id, worker, lease)).await
    }
    async fn lease_holder(&self, id: OperationId) -> Result<Option<LeaseHolder>, StoreError> {
        self.intercept("lease_holder", self.inner.lease_holder(id)).await
    }
    async fn renew(&self, writer: FencingToken, lease: Duration) -> Result<(), StoreError> {
        self.intercept("renew", self.inner.renew(writer, lease)).await
    }
    async fn check(&self, writer: FencingToken) -> Result<(), StoreError> {
        self.intercept("check", self.inner.check(writer)).await
    }
    async fn record(&self, writer: FencingToken, progress: &Progress) -> Result<OperationEvent, StoreError> {
        self.recorded.lock().unwrap().push((progress.step.to_string(), progress.durable));
        self.intercept("record", self.inner.record(writer, progress)).await
    }
    async fn begin_follow_up(&self, intent: &Intent, by: FencingToken) -> Result<Record, StoreError> {
        self.intercept("begin_follow_up", self.inner.begin_follow_up(intent, by)).await
    }
    async fn park_change(&self, subject: &Subject, by: FencingToken) -> Result<Option<Record>, StoreError> {
        self.intercept("park_change", self.inner.park_change(subject, by)).await
    }
    async fn abandon_change(&self, subject: &Subject, by: FencingToken) -> Result<(), StoreError> {
        self.intercept("abandon_change", self.inner.abandon_change(subject, by)).await
    }
    async fn resume_parked(&self, id: OperationId) -> Result<Record, StoreError> {
        self.intercept("resume_parked", self.inner.resume_parked(id)).await
    }
    async fn undo_parked(&self, id: OperationId) -> Result<Record, StoreError> {
        self.intercept("undo_parked", self.inner.undo_parked(id)).await
    }
    async fn abandon(&self, id: OperationId, reason: &str) -> Result<Record, StoreError> {
        self.intercept("abandon", self.inner.abandon(id, reason)).await
    }
    async fn skip_step(&self, id: OperationId, step: &str, reason: &str) -> Result<Record, StoreError> {
        self.intercept("skip_step", self.inner.skip_step(id, step, reason)).await
    }
    async fn open(&self) -> Result<Rows<Record>, StoreError> {
        self.intercept("open", self.inner.open()).await
    }
    async fn due(&self, limit: u32) -> Result<Vec<OperationId>, StoreError> {
        self.intercept("due", self.inner.due(limit)).await
    }
    async fn events(&self, id: OperationId, after: i64, limit: u32) -> Result<Rows<OperationEvent>, StoreError> {
        self.intercept("events", self.inner.events(id, after, limit)).await
    }
    async fn active_since(
        &self, subject: &Subject, since: OffsetDateTime, limit: u32,
    ) -> Result<Rows<Record>, StoreError> {
        self.intercept("active_since", self.inner.active_since(subject, since, limit)).await
    }
    async fn annotate(&self, id: OperationId, reason: &str) -> Result<(), StoreError> {
        self.intercept("annotate", self.inner.annotate(id, reason)).await
    }
    async fn history(&self, subject: &Subject) -> Result<Rows<Record>, StoreError> {
        self.intercept("history", self.inner.history(subject)).await
    }
}
