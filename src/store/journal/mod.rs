//! The journal: the stored state and history of every operation.
//!
//! The saga engine begins an operation with [`Journal::begin`]. It records each step with [`Journal::record`], and
//! any node can continue an operation after [`Journal::claim`].
//!
//! Invariants: a subject has at most one open operation in each lane. Only the worker with the newest epoch can write.
//! Every call is atomic, and no record contains a secret.
use crate::error::{BeginError, BoxError, Failure, FailureState, NameConflict, Rows, StoreError};
use crate::names::RoleName;
use crate::operation::{
    FencingToken, Lane, LeaseHolder, OperationEvent, OperationId, OperationState, OperationStatus, Subject,
};
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
pub(crate) use postgres::WorkerLock;

/// The stored part of a failure from which another node can build a typed error.
#[derive(Serialize, Deserialize)]
pub(crate) struct FailureFacts {
    /// The step that failed.
    pub(crate) step: String,
    /// The conflicting name, if the step failed because of one.
    pub(crate) taken: Option<NameConflict>,
    /// The error that started the undo. `Record::error` is overwritten if the undo fails too.
    #[serde(default)]
    pub(crate) cause: String,
    /// Whether the step may succeed in a new operation.
    #[serde(default)]
    pub(crate) is_transient: bool,
}

/// How long a caller waits before it repeats a call whose operation is undone, if the cause was transient.
pub(crate) const RETRY_UNDONE: Duration = Duration::from_secs(1);

/// The error of a failed operation whose undo failed too. The source is the original failure.
#[derive(Debug, thiserror::Error)]
#[error("undo {} step {at} ({undo})", if *.parked { "is parked at" } else { "waits to retry" })]
pub(crate) struct StillUndoing {
    #[source]
    pub(crate) cause: BoxError,
    pub(crate) undo: String,
    pub(crate) at: String,
    /// Whether the undo has been given up until an administrator acts.
    pub(crate) parked: bool,
}

/// Key in a step's output. Its value is the list of logins that the operation has created for its own use, for example
/// the migrator. They are dropped when the operation ends. While it is open, the check that no unexpected role can
/// connect ignores them.
pub(crate) const LOGINS: &str = "logins";

/// The logins that an operation has created for its own use.
pub(crate) fn temporary_logins(record: &Record) -> Vec<RoleName> {
    let lists = record.outputs.values().filter_map(|output| output.get(LOGINS));
    lists.filter_map(|list| serde_json::from_value::<Vec<RoleName>>(list.clone()).ok()).flatten().collect()
}

/// Key of the [`FailureFacts`] among the outputs of an operation. No step has this name.
pub(crate) const FAILURE: &str = "$failure";

/// Key among the outputs of an operation that was being undone when it was parked, or whose undo a caller began. Such
/// an operation is only ever continued backward.
pub(crate) const BACKWARD: &str = "$backward";

/// Key among the outputs of an abandoned operation. Its value is the reason.
pub(crate) const ABANDONED: &str = "$abandoned";

/// Key in a step's output. Its value is the id of the follow-up work that the step has begun.
pub(crate) const FOLLOW_UP: &str = "$follow_up";

/// Key among the outputs of an operation of which a caller has skipped `step`, or the undo of `step` if `backward`.
pub(crate) fn skip_key(step: &str, backward: bool) -> String {
    format!("$skip/{}/{step}", if backward { "undo" } else { "run" })
}

/// A new operation, to be committed before it has any effect.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Intent {
    /// Id of the operation, chosen by the caller.
    pub id: OperationId,
    /// The saga's kind.
    pub kind: Cow<'static, str>,
    /// The lane that the operation occupies until it ends.
    pub lane: Lane,
    /// The tenant, server or other object that the operation changes.
    pub subject: Subject,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// Free text of the caller for the history, for example the requesting user and the cause.
    pub reason: Option<String>,
    /// The request, without any secret. A second request under the same key is refused unless it is equal.
    pub request: Value,
    /// Number of steps, from the first one, whose intent this commit covers.
    pub intended: u32,
    /// Number of steps of the saga.
    pub total: u32,
    /// Id of the worker that begins the operation.
    pub worker: String,
    /// How long the worker keeps the operation without a renewal.
    pub lease: Duration,
    /// Whether any node may continue the operation. `false` if it needs data that only the caller has.
    pub recoverable: bool,
}
impl Intent {
    /// A recoverable operation without key, reason, request, steps or worker. Its lease has length zero.
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

/// An operation as the journal stores it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Record {
    /// Id of the operation.
    pub id: OperationId,
    /// The saga's kind.
    pub kind: String,
    /// The lane that the operation occupies until it ends.
    pub lane: Lane,
    /// The tenant, server or other object that the operation changes.
    pub subject: Subject,
    /// Free text of the caller, for example the requesting user and the cause.
    pub reason: Option<String>,
    /// The caller's request, without any secret.
    pub request: Value,
    /// Current status.
    pub status: OperationStatus,
    /// Name of the step that the latest progress record is about; empty before the first one.
    pub step: String,
    /// Number of steps that may have begun. An undo starts at the last of them.
    pub intended: u32,
    /// Number of completed steps. An undo reduces it.
    pub done: u32,
    /// Number of steps of the saga.
    pub total: u32,
    /// The values that completed steps returned, by step name.
    pub outputs: Map<String, Value>,
    /// Text of the latest error, if the latest progress record did not clear it.
    pub error: Option<String>,
    /// How many times workers have claimed the operation since a step last completed or was undone, or the undo began.
    /// The retry delay grows with it.
    pub attempts: u32,
    /// The newest epoch. Only the worker with this epoch can write.
    pub epoch: i64,
    /// Id of the worker that claimed the operation last.
    pub worker: String,
    /// When the operation began, by the landlord's clock.
    pub begun_at: OffsetDateTime,
    /// When the worker's lease expires, by the landlord's clock.
    pub leased_until: OffsetDateTime,
    /// When recovery may continue the operation, by the landlord's clock; `None` if it does not wait for a retry.
    pub retry_at: Option<OffsetDateTime>,
    /// Whether any node may continue the operation.
    pub recoverable: bool,
}
impl Record {
    /// The operation and its newest epoch.
    pub fn fencing_token(&self) -> FencingToken {
        FencingToken { operation: self.id, epoch: self.epoch }
    }
    /// Whether the operation has ended, is parked, or waits for a retry, so that a caller does not wait any longer.
    pub(crate) fn is_settled(&self) -> bool {
        self.status.is_over() || self.status == OperationStatus::Parked || self.retry_at.is_some()
    }
    /// Whether a worker that continues the operation has to undo it.
    pub(crate) fn is_backward(&self) -> bool {
        self.status == OperationStatus::Undoing || [FAILURE, BACKWARD].iter().any(|k| self.outputs.contains_key(*k))
    }
    /// Whether a caller has skipped this step, or its undo if `backward`.
    pub(crate) fn is_skipped(&self, step: &str, backward: bool) -> bool {
        self.outputs.contains_key(&skip_key(step, backward))
    }
    /// The follow-up work that a step of this operation has begun.
    pub(crate) fn follow_up(&self) -> Option<OperationId> {
        self.outputs.values().find_map(|output| serde_json::from_value(output.get(FOLLOW_UP)?.clone()).ok())
    }
    /// The failure that started the undo, if there was one. For callers that did not drive the operation themselves.
    pub(crate) fn failure(&self) -> Option<FailureFacts> {
        serde_json::from_value(self.outputs.get(FAILURE)?.clone()).ok()
    }
    /// How an operation that is not done continues.
    pub(crate) fn failure_state(&self) -> FailureState {
        match self.status {
            OperationStatus::Undone => FailureState::Undone,
            OperationStatus::Undoing => FailureState::Undoing,
            OperationStatus::Parked => FailureState::Parked,
            OperationStatus::Abandoned => FailureState::Abandoned,
            OperationStatus::Running | OperationStatus::Done => FailureState::Continuing,
        }
    }
    /// Builds the failure from the stored record, for callers that did not drive the operation themselves.
    pub(crate) fn to_failure(&self, state: FailureState) -> Failure {
        let last_error = self.error.clone().unwrap_or_else(|| self.describe_stop());
        // The caller cannot compute the rest of the time by the landlord's clock, so it asks again after a second.
        let waits = self.retry_at.map(|_| RETRY_UNDONE);
        let Some(FailureFacts { step, cause, is_transient, .. }) = self.failure() else {
            return Failure { retry_after: waits, ..Failure::new(self.id, self.step.clone(), state, last_error) };
        };
        match state {
            FailureState::Undone => {
                let retry_after = is_transient.then_some(RETRY_UNDONE);
                Failure { retry_after, ..Failure::new(self.id, step, state, cause) }
            }
            // Undoing has begun and has not failed itself.
            FailureState::Undoing if last_error == cause => {
                Failure { retry_after: waits, ..Failure::new(self.id, step, state, cause) }
            }
            FailureState::Undoing | FailureState::Parked => {
                let parked = state == FailureState::Parked;
                let cause = StillUndoing { cause: cause.into(), at: self.step.clone(), undo: last_error, parked };
                Failure { retry_after: waits, ..Failure::new(self.id, step, state, cause) }
            }
            _ => Failure { retry_after: waits, ..Failure::new(self.id, step, state, last_error) },
        }
    }
    /// What happened to an operation that has no error and whose result the caller does not get: its worker read this
    /// record after it was replaced.
    fn describe_stop(&self) -> String {
        match (self.status, self.worker.rsplit_once('/')) {
            (OperationStatus::Abandoned, _) => {
                let reason = self.outputs.get(ABANDONED).and_then(Value::as_str).unwrap_or_default();
                format!("it was abandoned: {reason}")
            }
            (OperationStatus::Parked, _) => String::from("another call has parked it"),
            (OperationStatus::Undone, _) => String::from("another worker has undone it"),
            (OperationStatus::Done, _) => String::from("another worker has completed it"),
            (_, Some((node, _))) => format!("a worker of node {node} has taken it over"),
            (_, None) => String::from("its worker was replaced, and the next one has not begun yet"),
        }
    }
    /// The part of the record that is shown to users: without lease, worker, request and outputs.
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

/// The result of [`Journal::begin`].
#[derive(Clone, Debug)]
pub enum Begun {
    /// The operation is new, and the caller's worker must drive it.
    New(Box<Record>),
    /// An operation with the same key and the same request exists. The caller waits for it and does not drive it.
    Joined(Box<Record>),
}

/// The result of [`Journal::claim`].
#[derive(Clone, Debug)]
pub enum Claim {
    /// The caller's worker has the operation, under a new epoch.
    Taken(Box<Record>),
    /// The operation cannot be claimed now: another worker's lease is valid, it waits for a retry, or it is parked.
    Held(Box<Record>),
    /// The operation has ended.
    Over(Box<Record>),
}

/// A progress record. The journal applies all of it in one write and appends one event.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// New status of the operation.
    pub status: OperationStatus,
    /// Name of the step that this record is about.
    pub step: Cow<'static, str>,
    /// Number of steps that may have begun after this record.
    pub intended: u32,
    /// Number of completed steps.
    pub done: u32,
    /// The value that the step returned.
    pub output: Option<Value>,
    /// Text of the error, if the step failed. It must not contain a secret.
    pub error: Option<String>,
    /// How long recovery waits before it continues the operation.
    pub retry_after: Option<Duration>,
    /// How long the worker keeps the operation from now on. `None` releases it.
    pub lease: Option<Duration>,
    /// Whether the commit waits until it is flushed to disk. An intent and a final record need this. A crash of the
    /// landlord may lose other records; then the completed step runs again, which is allowed because it is idempotent.
    pub durable: bool,
}

impl Progress {
    /// A record that changes nothing and releases the operation.
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
    /// A record that starts the undo of all steps that may have begun.
    pub(crate) fn start_undo(record: &Record, lease: Duration) -> Self {
        Self { status: OperationStatus::Undoing, lease: Some(lease), durable: true, ..Self::of(record) }
    }
}

/// The store of all operations. Every call is one atomic read or write. If its future is dropped, the call has either
/// its whole effect or none.
///
/// A list has the rows that cannot be parsed in [`Rows::unreadable`]; they do not fail the call.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Commits an intent durably, takes its lane, and gives the operation to the intent's worker under epoch 1.
    ///
    /// The idempotency key is checked first: if an operation with this key exists and is not `Undone`, the result is
    /// `Joined`, or `KeyReused` if its request differs. Requests are compared as JSON: `1` and `1.0` are the same
    /// number, and the order of an object's fields does not matter.
    ///
    /// # Errors
    /// `KeyReused`, or `Busy` with the operation that has the lane. A `Change` is `Busy` while any operation of the
    /// subject is open. A `Preempt` operation is `Busy` only while another `Preempt` operation of the subject is open. An
    /// operation of [`Lane::FollowUp`] is begun by [`begin_follow_up`](Self::begin_follow_up) and does not count.
    async fn begin(&self, intent: &Intent) -> Result<Begun, BeginError>;
    /// Finds the operation that `begin` would join because it has the intent's key and request. `None` if no operation
    /// has the key.
    ///
    /// # Errors
    /// `KeyReused` if the operation with the key has another request.
    async fn find_joined(&self, intent: &Intent) -> Result<Option<Record>, BeginError>;
    /// Reads the landlord's clock. Leases and deadlines refer to it.
    async fn now(&self) -> Result<OffsetDateTime, StoreError>;
    /// Reads one operation; `None` if the journal does not have it.
    async fn read(&self, id: OperationId) -> Result<Option<Record>, StoreError>;
    /// Gives an operation to `worker` and raises its epoch. Only an operation in status `Running` or `Undoing` can be
    /// claimed, and only after its lease has expired and its retry time has come. These times do not apply if `worker`
    /// already has the operation, so a worker that lost a session can claim its own operation again at once. The lease
    /// does not apply if the journal knows that the worker's process has died.
    ///
    /// # Errors
    /// `Conflict` if the journal does not have the operation.
    async fn claim(&self, id: OperationId, worker: &str, lease: Duration) -> Result<Claim, StoreError>;
    /// The worker whose valid lease prevents a claim. `None` if there is no such worker, also because the journal knows
    /// that its process has died.
    async fn lease_holder(&self, id: OperationId) -> Result<Option<LeaseHolder>, StoreError>;
    /// Extends the lease. `Fenced` if a newer worker has taken over, or if the operation was parked or has ended.
    async fn renew(&self, token: FencingToken, lease: Duration) -> Result<(), StoreError>;
    /// Fails with `Fenced` if the epoch is not the newest one. A worker calls it after it has opened a session and
    /// before it uses it.
    async fn check(&self, token: FencingToken) -> Result<(), StoreError>;
    /// Writes progress and its event. A final status frees the lane.
    ///
    /// # Errors
    /// `Fenced` if a newer worker has taken over, or if the operation was parked or has ended. `LostWrites` if the
    /// landlord has crashed since the worker claimed the operation.
    async fn record(&self, token: FencingToken, progress: &Progress) -> Result<OperationEvent, StoreError>;
    /// Parks the subject's unfinished operation of [`Lane::Change`] and raises its epoch, for the preempting operation
    /// `by`. May be repeated. Returns the parked operation; `None` if there is none.
    async fn park_change(&self, subject: &Subject, by: FencingToken) -> Result<Option<Record>, StoreError>;
    /// Commits the intent of work that follows the operation `by`, in [`Lane::FollowUp`], and returns its record. If an
    /// operation with this id exists already, returns that one, so the call may be repeated.
    ///
    /// # Errors
    /// `Fenced` if `by` is not the newest worker of an operation in progress.
    async fn begin_follow_up(&self, intent: &Intent, by: FencingToken) -> Result<Record, StoreError>;
    /// Ends the subject's parked operation of [`Lane::Change`] as `Undone`, and all its open operations of
    /// [`Lane::FollowUp`] as `Abandoned`, without undoing their steps. For a purge: it destroys everything that they
    /// could continue or undo. `Ok` if there is none.
    async fn abandon_change(&self, subject: &Subject, by: FencingToken) -> Result<(), StoreError>;
    /// Sets a parked operation to `Running`. `Conflict` if it is not parked.
    async fn resume_parked(&self, id: OperationId) -> Result<Record, StoreError>;
    /// Sets a parked operation to `Undoing`; from then on it only goes backward. `Conflict` if it is not parked.
    async fn undo_parked(&self, id: OperationId) -> Result<Record, StoreError>;
    /// Ends an open operation as `Abandoned`, whatever its status and lease: raises its epoch, frees its lane, and
    /// appends an event with the reason. Its idempotency key can be used again. Returns the record of an operation that
    /// is already abandoned, so the call may be repeated.
    ///
    /// # Errors
    /// `Conflict` if the operation does not exist or has ended in another way.
    async fn abandon(&self, id: OperationId, reason: &str) -> Result<Record, StoreError>;
    /// Lets an open operation continue in the direction that it had, without this step, or without the undo of this
    /// step if it is being undone. Raises its epoch, ends its lease and its wait for a retry, and appends an event with
    /// the reason. The caller has checked that the step may be skipped.
    ///
    /// # Errors
    /// `Conflict` if the operation does not exist or has ended.
    async fn skip_step(&self, id: OperationId, step: &str, reason: &str) -> Result<Record, StoreError>;
    /// Lists all operations that have not ended, oldest first.
    async fn open(&self) -> Result<Rows<Record>, StoreError>;
    /// Lists at most `limit` recoverable operations that can be claimed now, oldest first.
    async fn due(&self, limit: u32) -> Result<Vec<OperationId>, StoreError>;
    /// Reads at most `limit` events of an operation whose `seq` is greater than `after`, in ascending order.
    async fn events(&self, id: OperationId, after: i64, limit: u32) -> Result<Rows<OperationEvent>, StoreError>;
    /// Lists at most `limit` operations of a subject that are open or ended at `since` or later, newest first. For a
    /// caller that asks whether the subject was changed: it needs not read the whole history.
    async fn active_since(
        &self, subject: &Subject, since: OffsetDateTime, limit: u32,
    ) -> Result<Rows<Record>, StoreError>;
    /// Appends an event with this reason to an open operation, and changes nothing else. The event has the status, the
    /// step and the error that the operation had at that time.
    ///
    /// # Errors
    /// `Conflict` if the operation does not exist or has ended.
    async fn annotate(&self, id: OperationId, reason: &str) -> Result<(), StoreError>;
    /// Lists all operations of a subject, including ended ones, oldest first.
    async fn history(&self, subject: &Subject) -> Result<Rows<Record>, StoreError>;
}
