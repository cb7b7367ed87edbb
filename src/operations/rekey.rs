//! Rekey: every secret's data key is wrapped anew by the provider's primary key.
//!
//! 1. Give all nodes a key ring that holds the new key too, and still wraps with the old one.
//! 2. Give all nodes one whose primary is the new key.
//! 3. Rekey: when it is done, no record names the old key.
//! 4. Take the old key away. A program that is built without a key that a secret still needs refuses to start.
//!
//! Each step is safe to stop at, for as long as you like. Landlord backups from before still need the old key.
use crate::cluster::{OperationContext, ended};
use crate::error::{ChangeError, StepError, StoreError};
use crate::operation::{Lane, OperationId, Subject};
use crate::saga::{AnySaga, Engine, Execution, Outcome, Saga, SagaStep};
use crate::secret::KeyId;
use crate::store::journal::{Begun, Intent};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

/// The stored name of the saga.
const KIND: &str = "rekey";
/// Records that are wrapped anew at once.
const BATCH: u32 = 100;

/// What a rekey left.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rekeyed {
    /// Every key that a record names now: the primary alone, unless another node still wraps with another one.
    pub keys: Vec<KeyId>,
}

/// Wraps secrets anew. It spawns nothing: dropping one of its futures is like the death of the process.
#[derive(Clone)]
pub struct Rekey {
    stores: OperationContext,
    engine: Engine,
    saga: Arc<RekeySaga>,
}

impl Rekey {
    /// Over these stores.
    pub fn new(stores: OperationContext, engine: Engine) -> Self {
        let saga = Arc::new(RekeySaga { stores: stores.clone(), steps: vec![Box::new(Rewrap)] });
        Self { stores, engine, saga }
    }
    /// The saga, for a [`Recoverer`](crate::saga::Recoverer).
    pub fn saga(&self) -> Arc<dyn AnySaga> {
        self.saga.clone()
    }
    /// Commits the intent, under which the caller then holds the operation, or finds the one that has its key.
    pub async fn begin(&self, key: Option<String>, reason: Option<String>) -> Result<Begun, ChangeError> {
        let intent = Intent {
            key,
            reason,
            request: json!({}),
            intended: Engine::first_intent(&*self.saga),
            total: self.saga.steps.len() as u32,
            worker: Uuid::now_v7().to_string(),
            lease: self.engine.settings().lease,
            ..Intent::new(OperationId::new(), KIND, Lane::Change, Subject::Vault)
        };
        self.stores.begin(&intent).await
    }
    /// What an operation's end means to its caller.
    pub async fn rekeyed(&self, outcome: Outcome) -> Result<Rekeyed, ChangeError> {
        ended(outcome)?;
        let keys = self.stores.vault.keys_in_use().await.map_err(StoreError::unavailable)?;
        Ok(Rekeyed { keys })
    }
}

impl std::fmt::Debug for Rekey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rekey(..)")
    }
}

struct RekeySaga {
    stores: OperationContext,
    steps: Vec<Box<dyn SagaStep<OperationContext>>>,
}

impl Saga for RekeySaga {
    type Context = OperationContext;
    fn kind(&self) -> &'static str {
        KIND
    }
    fn steps(&self) -> &[Box<dyn SagaStep<OperationContext>>] {
        &self.steps
    }
    /// What is wrapped anew opens as well as before: there is nothing to undo.
    fn pivot_index(&self) -> usize {
        0
    }
    fn context(&self, _: &Execution) -> Result<OperationContext, StepError> {
        Ok(self.stores.clone())
    }
}

/// In batches, each record by compare-and-set: whoever comes later finds fewer of them.
struct Rewrap;
#[async_trait]
impl SagaStep<OperationContext> for Rewrap {
    fn name(&self) -> &'static str {
        "secrets.rewrap"
    }
    fn shares_intent_with_previous(&self) -> bool {
        false
    }
    async fn run(&self, run: &Execution, stores: &mut OperationContext) -> Result<Value, StepError> {
        let mut left = u64::MAX;
        loop {
            run.check().await?;
            match stores.vault.rewrap(BATCH).await? {
                0 => return Ok(Value::Null),
                // Another node wraps with another key as fast as this one wraps anew, or records do not open.
                same if same >= left => {
                    return Err(StepError::retry(format!("{same} secrets are wrapped by another key still")));
                }
                poll_batched => left = poll_batched,
            }
        }
    }
    async fn undo(&self, _: &Execution, _: &mut OperationContext) -> Result<(), StepError> {
        Ok(())
    }
}
