//! Rekey: every secret's data key is wrapped anew by the provider's primary key.
//!
//! 1. Give all nodes a key ring that holds the new key too, and still wraps with the old one.
//! 2. Give all nodes one whose primary is the new key.
//! 3. Rekey: when it is done, no record names the old key.
//! 4. Take the old key away. A program that is built without a key that a secret still needs refuses to start.
//!
//! Each step is safe to stop at, for as long as you like. Landlord backups from before still need the old key.
use crate::cluster::{Workshop, ended};
use crate::error::{ChangeError, StepError, StoreError};
use crate::operation::{Lane, OperationId, Subject};
use crate::saga::{Action, AnySaga, Engine, Outcome, Run, Saga};
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
    shop: Workshop,
    engine: Engine,
    saga: Arc<RekeySaga>,
}

impl Rekey {
    /// Over these stores.
    pub fn new(shop: Workshop, engine: Engine) -> Self {
        let saga = Arc::new(RekeySaga { shop: shop.clone(), steps: vec![Box::new(Rewrap)] });
        Self { shop, engine, saga }
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
        self.shop.begin(&intent).await
    }
    /// What an operation's end means to its caller.
    pub async fn rekeyed(&self, outcome: Outcome) -> Result<Rekeyed, ChangeError> {
        ended(outcome)?;
        let keys = self.shop.vault.keys_in_use().await.map_err(StoreError::unavailable)?;
        Ok(Rekeyed { keys })
    }
}

impl std::fmt::Debug for Rekey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rekey(..)")
    }
}

struct RekeySaga {
    shop: Workshop,
    steps: Vec<Box<dyn Action<Workshop>>>,
}

impl Saga for RekeySaga {
    type World = Workshop;
    fn kind(&self) -> &'static str {
        KIND
    }
    fn steps(&self) -> &[Box<dyn Action<Workshop>>] {
        &self.steps
    }
    /// What is wrapped anew opens as well as before: there is nothing to undo.
    fn no_return(&self) -> usize {
        0
    }
    fn world(&self, _: &Run) -> Result<Workshop, StepError> {
        Ok(self.shop.clone())
    }
}

/// In batches, each record by compare-and-set: whoever comes later finds fewer of them.
struct Rewrap;
#[async_trait]
impl Action<Workshop> for Rewrap {
    fn name(&self) -> &'static str {
        "secrets.rewrap"
    }
    fn joins_previous(&self) -> bool {
        false
    }
    async fn run(&self, run: &Run, shop: &mut Workshop) -> Result<Value, StepError> {
        let mut left = u64::MAX;
        loop {
            run.check().await?;
            match shop.vault.rewrap(BATCH).await? {
                0 => return Ok(Value::Null),
                // Another node wraps with another key as fast as this one wraps anew, or records do not open.
                same if same >= left => {
                    return Err(StepError::retry(format!("{same} secrets are wrapped by another key still")));
                }
                fewer => left = fewer,
            }
        }
    }
    async fn undo(&self, _: &Run, _: &mut Workshop) -> Result<(), StepError> {
        Ok(())
    }
}
