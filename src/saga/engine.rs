//! Walks the steps of a saga: forward, and backward when it must.
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

/// A plain list of steps over a world of sessions.
pub trait Saga: Send + Sync + 'static {
    /// What one worker holds while it works: sessions, above all. Made anew after every error, so that no step goes on
    /// with a session of which nothing is known.
    type Context: Send;
    /// The stored name: a contract.
    fn kind(&self) -> &'static str;
    /// The steps, in order.
    fn steps(&self) -> &[Box<dyn SagaStep<Self::Context>>];
    /// From the intent of this step on there is no way back: failures no longer undo.
    fn pivot_index(&self) -> usize;
    /// Whether its end may be forgotten and come again: what its caller is told then stands in earlier commits that were
    /// waited for, and the last step finds nothing more to do.
    fn final_record_is_repeatable(&self) -> bool {
        false
    }
    /// A world without any session yet.
    fn context(&self, run: &Execution) -> Result<Self::Context, StepError>;
}

/// One step. Any of its futures may be dropped at any await, and it may run again, here or on another node.
#[async_trait]
pub trait SagaStep<W: Send>: Send + Sync + 'static {
    /// The stored name: a contract. No two steps of a saga share one.
    fn name(&self) -> &'static str;
    /// Whether the intent of the step before covers this one too, so that no commit stands between them.
    fn shares_intent_with_previous(&self) -> bool;
    /// Whether all that it does stands in the landlord's own tables. Commits get lost from the end alone, so its effect
    /// cannot outlive its intent, and the walk does not wait until that is on the disk.
    fn landlord_only(&self) -> bool {
        false
    }
    /// Does it, or finds it done. What it answers is stored: no secret.
    async fn run(&self, run: &Execution, context: &mut W) -> Result<Value, StepError>;
    /// Makes sure that nothing of it is there, whatever became of `run`: not begun, failed, done, or unknown. A step beyond
    /// its saga's point of no return needs none of its own: this one refuses, and a person is asked.
    async fn undo(&self, _: &Execution, _: &mut W) -> Result<(), StepError> {
        Err(StepError::fail(format!("{} only goes forward", self.name())))
    }
}

/// A store that must learn of a takeover before the new worker acts.
#[async_trait]
pub trait EpochFence: Send + Sync + 'static {
    /// From now on only writes of at least this epoch succeed.
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError>;
}

/// How patient the engine is.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// For how long a worker holds an operation without a sign of life.
    pub lease: Duration,
    /// The first wait after a failure; it doubles, with jitter.
    pub backoff: Duration,
    /// The longest wait.
    pub backoff_limit: Duration,
    /// Tries of a step within one call, before the operation is undone or left to recovery.
    pub attempts: u32,
    /// How long after its begin an operation that can still be undone is undone, whatever it waits for. What can only go
    /// forward goes on.
    pub deadline: Duration,
}
impl Default for Settings {
    /// 30 s; 200 ms up to 1 min; 4 tries; 1 h.
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
    /// Exponential with full jitter over its upper half, so that workers that failed together do not return together.
    pub(super) fn wait(&self, attempt: u32) -> Duration {
        let longest = self.backoff.saturating_mul(1 << attempt.min(16)).min(self.backoff_limit);
        longest.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

/// How a worker left an operation.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// As the journal has it now, as far as this worker knows.
    pub record: Record,
    /// What failed, if something did; `None` for an operation that is done, was stopped, or was taken over.
    pub failure: Option<Failure>,
}

impl Outcome {
    /// What the journal alone tells.
    pub fn of(record: Record) -> Self {
        Self { record, failure: None }
    }
}

/// Drives operations. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(super) journal: Arc<dyn Journal>,
    stores: Arc<[Arc<dyn EpochFence>]>,
    pub(super) settings: Settings,
    pub(super) stop: CancellationToken,
}

impl Engine {
    /// `stores` are told of each takeover; those in the journal's own database, which share its epochs, need not be.
    pub fn new(
        journal: Arc<dyn Journal>, stores: Vec<Arc<dyn EpochFence>>, settings: Settings, stop: CancellationToken,
    ) -> Self {
        Self { journal, stores: stores.into(), settings, stop }
    }
    /// The journal.
    pub fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }
    /// How patient it is.
    pub fn settings(&self) -> Settings {
        self.settings
    }
    /// How many steps the intent of a new operation of this saga covers.
    pub fn first_intent<S: Saga>(saga: &S) -> u32 {
        runner::covered(saga, 0)
    }

    /// Drives an operation that the caller holds until it ends, waits or is taken over. `observe` sees each event of
    /// this worker. Dropping the future is like the death of the worker: recovery goes on after the lease.
    ///
    /// # Errors
    /// Only when the journal does not answer; everything else is in the outcome.
    pub async fn drive<S: Saga>(
        &self, saga: &S, held: Record, fresh: bool, observe: &Observer,
    ) -> Result<Outcome, StoreError> {
        runner::runner(self, saga, Execution::new(self.journal.clone(), held, fresh), observe).await
    }

    /// Whether there is no store but those in the journal's own database.
    pub(super) fn is_one_database(&self) -> bool {
        self.stores.is_empty()
    }

    pub(super) async fn fence(&self, record: &Record) -> Result<(), StepError> {
        for store in self.stores.iter() {
            store.fence(record.id, record.epoch).await?;
        }
        Ok(())
    }

    /// Runs a step and keeps the lease meanwhile, in one task: nothing is left running when either ends.
    pub(super) async fn guarded<T>(
        &self, run: &Execution, step: impl Future<Output = Result<T, StepError>>,
    ) -> Result<T, StepError> {
        tokio::select! {
            biased;
            result = step => result,
            lost = self.keep_lease(run) => Err(lost),
        }
    }

    async fn keep_lease(&self, run: &Execution) -> StepError {
        let lease = self.settings.lease;
        let mut until = Instant::now() + lease;
        loop {
            sleep(lease / 3).await;
            let asked = Instant::now();
            match timeout_at(until, rt::poll_batched(self.journal.renew(run.fencing_token(), lease))).await {
                Ok(Ok(())) => until = asked + lease,
                Ok(Err(StoreError::Fenced)) => return StoreError::Fenced.into(),
                Ok(Err(_)) if Instant::now() < until => {}
                _ => return StepError::retry("the lease ran out while the landlord did not answer"),
            }
        }
    }
}
