//! The engine: begins operations, and keeps the lease of the one that a worker drives.
//!
//! The operations layer begins an operation with [`Engine::begin`] and drives it with [`NewOperation::drive`]; recovery
//! drives the operations that it has claimed. The runner module contains the loop itself.
//!
//! Invariants: a step runs only after its intent is committed. A worker acts only while its epoch is the newest one and
//! its lease is valid. Driving spawns no task, so dropping its future stops all of the worker's activity.
use super::begin::with_cause;
use super::{CallOptions, Execution, NewOperation, Saga, Started};
use crate::error::{BeginError, EXCERPT, Failure, StepError, StoreError, shorten};
use crate::names::{MAX_KEY, MAX_REASON, check_text};
use crate::operation::{OperationId, Subject};
use crate::rt;
use crate::store::journal::{Begun, Intent, Journal, Record};
use crate::store::nodes::Node;
use async_trait::async_trait;
use rand::RngExt;
use serde::Serialize;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A store outside the journal's database. It must reject the writes of a worker that has been replaced. Before the new
/// worker acts, the engine calls [`fence`](Self::fence) on each such store.
#[async_trait]
pub trait EpochFence: Send + Sync + 'static {
    /// After this call returns, the store accepts only writes of `operation` whose epoch is at least `epoch`.
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError>;
}

/// Lease, retry and deadline settings of the engine.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// How long a worker keeps an operation after its last renewal. The worker renews at a third of it. Default: 30 s.
    pub lease: Duration,
    /// The delay after the first failure. It doubles with each further failure and has random jitter. Default: 200 ms.
    pub backoff: Duration,
    /// The longest delay between two attempts. Default: 1 min.
    pub backoff_limit: Duration,
    /// How often one worker attempts a step before it undoes the operation or leaves it to recovery.
    /// Default: 4.
    pub attempts: u32,
    /// Time limit of an operation before its pivot step, counted from its begin. When it expires, the operation is
    /// undone. An operation that has passed its pivot step continues. Default: 1 h.
    pub deadline: Duration,
}
impl Default for Settings {
    /// See the documentation of each field.
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            backoff: Duration::from_millis(200),
            backoff_limit: Duration::from_secs(60),
            attempts: 4,
            deadline: Duration::from_secs(3600),
        }
    }
}
impl Settings {
    /// The delay before the next attempt: exponential, and random between 50 % and 100 % of the exponential value. The
    /// jitter prevents workers that failed at the same time from retrying at the same time.
    pub(super) fn backoff_delay(&self, attempt: u32) -> Duration {
        let longest = self.backoff.saturating_mul(1 << attempt.min(16)).min(self.backoff_limit);
        longest.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

/// The state in which a worker left an operation.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The journal's record, as far as this worker knows it.
    pub record: Record,
    /// The failure, if a step failed. `None` for an operation that is done, was stopped, or was taken over.
    pub failure: Option<Failure>,
}

impl Outcome {
    /// An outcome that consists of the journal's record only, without a failure.
    pub fn from_record(record: Record) -> Self {
        Self { record, failure: None }
    }
}

/// Drives operations. A clone shares the journal, the stores and the stop token.
#[derive(Clone)]
pub struct Engine {
    pub(super) journal: Arc<dyn Journal>,
    stores: Arc<[Arc<dyn EpochFence>]>,
    pub(super) settings: Settings,
    pub(super) stop: CancellationToken,
}

impl Engine {
    /// Creates an engine. It notifies `stores` of each takeover. Stores in the journal's own database do not belong in
    /// this list, because they check the journal's epoch in the same statement. When `stop` is cancelled, each worker
    /// stops before its next step and releases its operation.
    pub fn new(
        journal: Arc<dyn Journal>, stores: Vec<Arc<dyn EpochFence>>, settings: Settings, stop: CancellationToken,
    ) -> Self {
        Self { journal, stores: stores.into(), settings, stop }
    }
    /// The journal that this engine writes.
    pub fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }
    /// Whether this process begins no operation any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.stop.is_cancelled()
    }
    /// The lease, retry and deadline settings.
    pub fn settings(&self) -> Settings {
        self.settings
    }
    /// The intent of a new operation of this saga on `subject`. `request` must not contain a secret. Its id, worker and
    /// lease are those of this process.
    ///
    /// # Errors
    /// [`BeginError::Invalid`] if the key or the reason breaks a rule. `Landlord` if the request cannot be stored as
    /// JSON.
    pub fn intent<C: Send + 'static>(
        &self, saga: &Saga<C>, subject: Subject, request: &impl Serialize, options: &CallOptions,
    ) -> Result<Intent, BeginError> {
        check_option("idempotency key", options.key.as_deref(), 1, MAX_KEY)?;
        check_option("reason", options.reason.as_deref(), 0, MAX_REASON)?;
        Ok(Intent {
            key: options.key.clone(),
            reason: options.reason.clone(),
            request: with_cause(serde_json::to_value(request).map_err(StoreError::refused)?, options.cause.as_ref()),
            intended: saga.intent_group_end(0),
            total: saga.step_list().len() as u32,
            worker: Self::new_worker(),
            lease: self.settings.lease,
            ..Intent::new(OperationId::new(), saga.kind(), saga.lane(), subject)
        })
    }

    /// Id of a new worker of this process. It contains the node's name, which callers see that wait for the worker.
    pub(crate) fn new_worker() -> String {
        format!("{}/{}", Node::process_name(), Uuid::now_v7())
    }

    /// Commits an intent, or finds the operation that already has its key. `check` runs before the commit and may
    /// refuse a new operation. It does not run for a repeated call: the first call may have changed what `check`
    /// examines.
    ///
    /// # Errors
    /// The error of `check`, or a [`BeginError`]. Nothing is committed then, except that the outcome of a commit whose
    /// answer was lost is unknown.
    pub async fn commit<E: From<BeginError>>(
        &self, intent: &Intent, check: impl Future<Output = Result<(), E>>,
    ) -> Result<Begun, E> {
        if self.stop.is_cancelled() {
            return Err(BeginError::Closed.into());
        }
        if intent.key.is_some()
            && let Some(joined) = self.journal.find_joined(intent).await?
        {
            return Ok(Begun::Joined(Box::new(joined)));
        }
        check.await?;
        Ok(self.journal.begin(intent).await?)
    }

    /// As [`commit`](Self::commit), and binds a new operation to its saga.
    ///
    /// # Errors
    /// Same as [`commit`](Self::commit).
    pub async fn begin<C: Send + 'static, E: From<BeginError>>(
        &self, saga: &Arc<Saga<C>>, intent: &Intent, check: impl Future<Output = Result<(), E>>,
    ) -> Result<Started, E> {
        Ok(match self.commit(intent, check).await? {
            Begun::New(record) => Started::New(NewOperation::new(saga.clone(), record, None)),
            Begun::Joined(record) => Started::Joined(record),
        })
    }

    /// Whether all stores are in the journal's own database.
    pub(super) fn is_one_database(&self) -> bool {
        self.stores.is_empty()
    }

    /// Notifies all stores outside the journal's database of this worker's epoch.
    pub(super) async fn fence(&self, record: &Record) -> Result<(), StepError> {
        for store in self.stores.iter() {
            store.fence(record.id, record.epoch).await?;
        }
        Ok(())
    }

    /// Runs a step and renews the lease at the same time, both in the caller's task. When the step ends or the lease is
    /// lost, the other future is dropped.
    pub(super) async fn run_with_lease<T>(
        &self, run: &Execution, step: impl Future<Output = Result<T, StepError>>,
    ) -> Result<T, StepError> {
        tokio::select! {
            biased;
            result = step => result,
            lost = self.renew_until_lost(run) => Err(lost),
        }
    }

    /// Renews the lease until it expires or a newer worker has taken over, and returns the reason.
    async fn renew_until_lost(&self, run: &Execution) -> StepError {
        let lease = self.settings.lease;
        let mut expires_at = Instant::now() + lease;
        loop {
            sleep(lease / 3).await;
            // The new lease is counted from before the request: the landlord starts it later, never earlier.
            let requested_at = Instant::now();
            match timeout_at(expires_at, rt::poll_batched(self.journal.renew(run.fencing_token(), lease))).await {
                Ok(Ok(())) => expires_at = requested_at + lease,
                Ok(Err(StoreError::Fenced)) => return StoreError::Fenced.into(),
                Ok(Err(_)) if Instant::now() < expires_at => {}
                _ => return StepError::retry("the lease expired because the landlord did not answer its renewal"),
            }
        }
    }
}

/// Fails if the text of a caller breaks a rule.
fn check_option(field: &'static str, text: Option<&str>, min: usize, max: usize) -> Result<(), BeginError> {
    let Some(text) = text else { return Ok(()) };
    let invalid = |source| BeginError::Invalid { field, value: shorten(text, EXCERPT), source };
    check_text(text, min, max).map_err(invalid)
}
