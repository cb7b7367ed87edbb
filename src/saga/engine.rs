//! Defines sagas and their steps, and the engine that drives one operation through them.
//!
//! The operations layer implements [`Saga`] once for each verb and calls [`Engine::drive`] with an operation that it
//! has begun or claimed in the journal. The runner module contains the loop itself.
//!
//! Invariants: a step runs only after its intent is committed. A worker acts only while its epoch is the newest one and
//! its lease is valid. `Engine::drive` spawns no task, so dropping its future stops all of the worker's activity.
use super::{Execution, Observer, runner};
use crate::error::{Failure, StepError, StoreError};
use crate::operation::OperationId;
use crate::rt;
use crate::store::journal::{Journal, Record};
use async_trait::async_trait;
use rand::RngExt;
use serde_json::Value;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

/// An operation kind: an ordered list of steps that share one context.
pub trait Saga: Send + Sync + 'static {
    /// The state that one worker keeps between steps, mainly open sessions. The engine builds a new context after every
    /// error, because the state of the old sessions is then unknown.
    type Context: Send;
    /// The kind under which the journal stores operations of this saga. It must never change: recovery finds the saga
    /// by it.
    fn kind(&self) -> &'static str;
    /// The steps, in the order in which they run.
    fn steps(&self) -> &[Box<dyn SagaStep<Self::Context>>];
    /// Index of the pivot step. Once the intent of this step is committed, a failure no longer undoes the operation:
    /// the engine retries it or parks it.
    fn pivot_index(&self) -> usize;
    /// Whether the final record may be committed asynchronously. Safe only if every result shown to the caller is
    /// already durable and the last step can be repeated.
    fn final_record_is_repeatable(&self) -> bool {
        false
    }
    /// Builds a context without any open session.
    ///
    /// # Errors
    /// An error is handled like the failure of a step with the name `takeover`.
    fn context(&self, run: &Execution) -> Result<Self::Context, StepError>;
}

/// One step of a saga. The futures of `run` and `undo` may be dropped at any await point, and both may be called again,
/// on this node or on another one.
#[async_trait]
pub trait SagaStep<C: Send>: Send + Sync + 'static {
    /// The name under which the journal stores the step. It must never change and must be unique within the saga.
    fn name(&self) -> &'static str;
    /// Whether the intent of the previous step also covers this step, so that the engine commits nothing between them.
    fn shares_intent_with_previous(&self) -> bool;
    /// Whether the step writes to the landlord's own tables only. A crashed landlord loses its latest commits first, so
    /// the effect of such a step cannot survive without its intent. The engine then does not wait until the intent is
    /// flushed to disk.
    fn landlord_only(&self) -> bool {
        false
    }
    /// Performs the step, or confirms that it has already been performed. The journal stores the returned value, so it
    /// must not contain a secret.
    async fn run(&self, run: &Execution, context: &mut C) -> Result<Value, StepError>;
    /// Ensures that no effect of the step exists. `run` may not have begun, may have failed, may have succeeded, or its
    /// outcome may be unknown. The default fails. A step after the pivot step can keep it, because the engine never
    /// starts an undo from there.
    async fn undo(&self, _: &Execution, _: &mut C) -> Result<(), StepError> {
        Err(StepError::fail(format!("step {} cannot be undone", self.name())))
    }
}

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
    /// How often one call of [`Engine::drive`] attempts a step before it undoes the operation or leaves it to recovery.
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
    /// The lease, retry and deadline settings.
    pub fn settings(&self) -> Settings {
        self.settings
    }
    /// The number of steps that the first intent of a new operation of this saga covers.
    pub fn first_intent_steps<S: Saga>(saga: &S) -> u32 {
        runner::intent_group_end(saga, 0)
    }

    /// Drives an operation that the caller has begun or claimed, until the operation ends, waits for a retry, is parked
    /// or is taken over. Set `fresh` if the caller has just begun it, so that no earlier worker can have left an
    /// effect. `observe` is called with each event that this worker writes.
    ///
    /// Dropping the future has the same effect as a crash of the worker: recovery continues after the lease expires.
    ///
    /// # Errors
    /// Fails only when the journal does not answer or refuses to claim the operation again. The outcome reports every
    /// other failure.
    pub async fn drive<S: Saga>(
        &self, saga: &S, claimed: Record, fresh: bool, observe: &Observer,
    ) -> Result<Outcome, StoreError> {
        runner::drive(self, saga, Execution::new(self.journal.clone(), claimed, fresh), observe).await
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
