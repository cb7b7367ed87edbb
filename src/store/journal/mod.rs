//! The journal: what each operation intended, did and undid. The saga engine writes it; any node can continue from it.
use crate::error::{BoxError, Failure, FailureState, NameConflict, StoreError};
use crate::names::RoleName;
use crate::operation::{FencingToken, Lane, OperationEvent, OperationId, OperationState, OperationStatus, Subject};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{borrow::Cow, time::Duration};
use time::OffsetDateTime;

#[cfg(feature = "testing")]
mod memory;
mod postgres;
#[cfg(feature = "testing")]
pub use memory::MemoryJournal;
pub use postgres::PgJournal;

/// What callers on other nodes need to know of a failure to tell it by type.
#[derive(Serialize, Deserialize)]
pub(crate) struct FailureFacts {
    /// The step that failed.
    pub(crate) step: String,
    /// The name that was taken, if that was it.
    pub(crate) taken: Option<NameConflict>,
    /// Why. The operation's own error is the last one: of its undo, if that failed too.
    #[serde(default)]
    pub(crate) cause: String,
}

/// Two troubles: what failed, and what keeps it from being undone.
#[derive(Debug, thiserror::Error)]
#[error("undoing waits at step {at} ({undo})")]
pub(crate) struct StillUndoing {
    #[source]
    pub(crate) cause: BoxError,
    pub(crate) undo: String,
    pub(crate) at: String,
}

/// The part of a step's output that names the logins which the operation has made for itself (a migrator, say), as a list
/// of role names. They expire with the operation: while it is open, a read-back exempts them.
pub(crate) const LOGINS: &str = "logins";

/// The logins that an operation has made for itself.
pub(crate) fn logins(record: &Record) -> Vec<RoleName> {
    let named = record.outputs.values().filter_map(|output| output.get(LOGINS));
    named.filter_map(|list| serde_json::from_value::<Vec<RoleName>>(list.clone()).ok()).flatten().collect()
}

/// The output under which [`FailureFacts`] stand.
pub(crate) const FAILURE: &str = "$failure";

/// What an operation is going to do, before it does anything.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Intent {
    /// Its id, chosen by the caller.
    pub id: OperationId,
    /// The saga's stored name.
    pub kind: Cow<'static, str>,
    /// Which lane it takes.
    pub lane: Lane,
    /// About what.
    pub subject: Subject,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// Who and why.
    pub reason: Option<String>,
    /// The request, without any secret: one key with two requests is refused.
    pub request: Value,
    /// Steps that this commit already covers.
    pub intended: u32,
    /// Steps in all.
    pub total: u32,
    /// The worker that begins it.
    pub worker: String,
    /// For how long the worker holds it.
    pub lease: Duration,
    /// Whether any node may go on with it; `false` if it needs what only the caller has.
    pub recoverable: bool,
}
impl Intent {
    /// An operation in lane `change` without key, reason or request, held by nobody.
    pub fn new(id: OperationId, kind: impl Into<Cow<'static, str>>, lane: Lane, subject: Subject) -> Self {
        let worker = String::new();
        Self {
            id,
            kind: kind.into(),
            lane,
            subject,
            key: None,
            reason: None,
            request: Value::Null,
            intended: 0,
            total: 0,
            worker,
            lease: Duration::ZERO,
            recoverable: true,
        }
    }
}

/// An operation as the journal has it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Record {
    /// Its id.
    pub id: OperationId,
    /// The saga's stored name.
    pub kind: String,
    /// Its lane.
    pub lane: Lane,
    /// About what.
    pub subject: Subject,
    /// Who and why.
    pub reason: Option<String>,
    /// The request.
    pub request: Value,
    /// Where it stands.
    pub status: OperationStatus,
    /// The step that ran last.
    pub step: String,
    /// Steps that may have begun: an undo starts here.
    pub intended: u32,
    /// Steps that succeeded; counts down in an undo.
    pub done: u32,
    /// Steps in all.
    pub total: u32,
    /// What steps answered, by name.
    pub outputs: Map<String, Value>,
    /// What went wrong last.
    pub error: Option<String>,
    /// Tries since the last progress.
    pub attempts: u32,
    /// Its newest epoch.
    pub epoch: i64,
    /// Who holds it.
    pub worker: String,
    /// When it began, by the landlord's clock.
    pub begun_at: OffsetDateTime,
    /// Until when, by the landlord's clock.
    pub leased_until: OffsetDateTime,
    /// When it is tried again, if it waits.
    pub retry_at: Option<OffsetDateTime>,
    /// Whether any node may go on with it.
    pub recoverable: bool,
}
impl Record {
    /// The writer of its newest epoch.
    pub fn fencing_token(&self) -> FencingToken {
        FencingToken { operation: self.id, epoch: self.epoch }
    }
    /// Whether it has ended, is parked, or waits for its next try: a caller has nothing to wait for.
    pub(crate) fn is_settled(&self) -> bool {
        self.status.is_over() || self.status == OperationStatus::Parked || self.retry_at.is_some()
    }
    /// What failed, if something did: for callers whose own worker it was not.
    pub(crate) fn failure(&self) -> Option<FailureFacts> {
        serde_json::from_value(self.outputs.get(FAILURE)?.clone()).ok()
    }
    /// A failure as the journal tells it.
    pub(crate) fn told(&self, after: FailureState) -> Failure {
        let last = self.error.clone().unwrap_or_else(|| String::from("its worker was stopped"));
        let Some(FailureFacts { step, cause, .. }) = self.failure() else {
            return Failure::new(self.id, self.step.clone(), after, last);
        };
        match after {
            FailureState::Undone => Failure::new(self.id, step, after, cause),
            FailureState::Undoing if self.retry_at.is_some() => {
                let cause = StillUndoing { cause: cause.into(), at: self.step.clone(), undo: last };
                Failure::new(self.id, step, after, cause)
            }
            _ => Failure::new(self.id, step, after, last),
        }
    }
    /// What anybody may see of it.
    pub fn state(&self) -> OperationState {
        OperationState::new(
            self.id,
            self.kind.clone(),
            self.subject.clone(),
            self.status,
            self.step.clone(),
            self.done,
            self.total,
            self.error.clone(),
            self.retry_at,
            self.reason.clone(),
        )
    }
}

/// What `begin` found.
#[derive(Clone, Debug)]
pub enum Begun {
    /// It is new, and the caller holds it.
    New(Box<Record>),
    /// The key's operation, with the same request: watch it.
    Joined(Box<Record>),
    /// The key's operation, with another request.
    KeyReused(OperationId),
    /// The lane is taken by this operation.
    Busy(OperationId),
}

/// What `claim` found.
#[derive(Clone, Debug)]
pub enum Claim {
    /// The caller holds it, under a new epoch.
    Taken(Box<Record>),
    /// Somebody else holds it, it waits for its time, or it is parked.
    Held(Box<Record>),
    /// It has ended.
    Over(Box<Record>),
}

/// One line of progress: all of it becomes true in one write, together with its event.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// Where the operation stands now.
    pub status: OperationStatus,
    /// The step this is about.
    pub step: Cow<'static, str>,
    /// Steps that may begin from now on.
    pub intended: u32,
    /// Steps behind it.
    pub done: u32,
    /// What the step answered.
    pub output: Option<Value>,
    /// What went wrong; no secret.
    pub error: Option<String>,
    /// Not before this time it is tried again.
    pub retry_after: Option<Duration>,
    /// For how long the worker goes on holding it; `None`: it lets go.
    pub lease: Option<Duration>,
    /// Whether the caller must know it durable before it acts: an intent before an effect, or an end. What merely
    /// happened may be lost with the server's last milliseconds, because a step that ran may run again.
    pub durable: bool,
}

impl Progress {
    /// Where an operation stands, with nothing new to say: the worker lets go of it.
    pub fn of(record: &Record) -> Self {
        Self {
            status: record.status,
            step: record.step.clone().into(),
            intended: record.intended,
            done: record.done,
            output: None,
            error: None,
            retry_after: None,
            lease: None,
            durable: false,
        }
    }
    /// Turns an operation around: everything that it may have begun is undone.
    pub(crate) fn turn(record: &Record, lease: Duration) -> Self {
        Self { status: OperationStatus::Undoing, lease: Some(lease), durable: true, ..Self::of(record) }
    }
}

/// What an operation intended, did and undid. Every call is one atomic write or read; dropping its future leaves either
/// all or nothing of it.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Commits an intent, takes its lane and holds it, under epoch 1. A `Fence` waits for no open `Change`; a `Change`
    /// is refused while a `Fence` is open. The key decides first: an operation that has it and is not undone is joined
    /// or `KeyReused`.
    async fn begin(&self, intent: &Intent) -> Result<Begun, StoreError>;
    /// What `begin` would find under the intent's key: `Joined`, `KeyReused`, or `None`. One read.
    async fn joined(&self, intent: &Intent) -> Result<Option<Begun>, StoreError>;
    /// The landlord's clock, by which leases and deadlines are.
    async fn now(&self) -> Result<OffsetDateTime, StoreError>;
    /// One operation.
    async fn read(&self, id: OperationId) -> Result<Option<Record>, StoreError>;
    /// Takes over an operation that runs or is being undone, whose lease is over and whose time has come, and raises
    /// its epoch. A lease that is `worker`'s own counts as over: a worker that lost a session is its own successor.
    async fn claim(&self, id: OperationId, worker: &str, lease: Duration) -> Result<Claim, StoreError>;
    /// Holds it longer. `Fenced` if the epoch is over.
    async fn renew(&self, token: FencingToken, lease: Duration) -> Result<(), StoreError>;
    /// Whether the epoch is the newest: `Fenced` if not. A worker asks after it has opened a session and before it acts.
    async fn check(&self, token: FencingToken) -> Result<(), StoreError>;
    /// Writes progress and its event. `Fenced` if the epoch is over. An end frees the lane.
    async fn record(&self, token: FencingToken, progress: &Progress) -> Result<OperationEvent, StoreError>;
    /// For a fence: raises the epoch of the subject's open `Change` and parks it. Repeating it changes nothing.
    /// Returns the operation that was or is parked so.
    async fn park_change(&self, subject: &Subject, by: FencingToken) -> Result<Option<Record>, StoreError>;
    /// For a fence that leaves nothing to go on with: ends the subject's parked `Change` as `Undone`. None: `Ok`.
    async fn abandon_change(&self, subject: &Subject, by: FencingToken) -> Result<(), StoreError>;
    /// Lets a parked operation run (`undo`: backward) again. `Conflict` if it is not parked.
    async fn unpark(&self, id: OperationId, undo: bool) -> Result<Record, StoreError>;
    /// Open operations, oldest first.
    async fn open(&self) -> Result<Vec<Record>, StoreError>;
    /// Operations that any node may take over now, oldest first.
    async fn due(&self, limit: u32) -> Result<Vec<OperationId>, StoreError>;
    /// At most `limit` events after `seq`, ascending.
    async fn events(&self, id: OperationId, after: i64, limit: u32) -> Result<Vec<OperationEvent>, StoreError>;
    /// The operations of a subject, oldest first, ended ones included.
    async fn history(&self, subject: &Subject) -> Result<Vec<Record>, StoreError>;
}
