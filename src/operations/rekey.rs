//! Rekey: wraps the data key of every stored secret again, with the primary key of the key provider.
//!
//! To replace a key:
//!
//! 1. Deploy a key ring to all nodes that also holds the new key, with the old key still primary.
//! 2. Deploy a key ring to all nodes whose primary is the new key.
//! 3. Rekey. When it is done, no record names the old key.
//! 4. Remove the old key. A program whose key ring lacks a key that a secret still needs refuses to start.
//!
//! It is safe to stop after any of these for any length of time. Backups of the landlord that are older than the rekey
//! still need the old key. The facade begins and drives the operation through `Rekey`. Rewrapping changes no secret,
//! so it can be repeated and never has to be undone.
use crate::cluster::{OperationContext, require_done};
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
/// Records that one call of the vault rewraps.
const BATCH: u32 = 100;

/// The keys that are in use after [`Tenantry::rekey`](crate::Tenantry::rekey), which encrypts the data key of every
/// secret with the current primary key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rekeyed {
    /// Every key that a record names now. That is the primary alone, unless a node with another primary has stored a
    /// secret meanwhile.
    pub keys: Vec<KeyId>,
}

/// Begins and drives rekey operations. It spawns no task: if one of its futures is dropped, the work stops there, and
/// recovery continues it after the lease.
#[derive(Clone)]
pub(crate) struct Rekey {
    stores: OperationContext,
    engine: Engine,
    saga: Arc<RekeySaga>,
}

impl Rekey {
    /// Creates the driver of rekey operations over these stores.
    pub(crate) fn new(stores: OperationContext, engine: Engine) -> Self {
        let saga = Arc::new(RekeySaga { stores: stores.clone(), steps: vec![Box::new(Rewrap)] });
        Self { stores, engine, saga }
    }
    /// The rekey saga, for a [`Recoverer`](crate::saga::Recoverer).
    pub(crate) fn saga(&self) -> Arc<dyn AnySaga> {
        self.saga.clone()
    }
    /// Commits the intent of a new rekey, which the caller must then drive, or finds the operation that already has
    /// `key`.
    pub(crate) async fn begin(&self, key: Option<String>, reason: Option<String>) -> Result<Begun, ChangeError> {
        let intent = Intent {
            key,
            reason,
            request: json!({}),
            intended: Engine::first_intent_steps(&*self.saga),
            total: self.saga.steps.len() as u32,
            worker: Uuid::now_v7().to_string(),
            lease: self.engine.settings().lease,
            ..Intent::new(OperationId::new(), KIND, Lane::Change, Subject::Vault)
        };
        self.stores.begin(&intent).await
    }
    /// Converts the outcome of an operation to the result that the caller gets.
    pub(crate) async fn rekeyed(&self, outcome: Outcome) -> Result<Rekeyed, ChangeError> {
        require_done(outcome)?;
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
    /// No step is ever undone: a rewrapped secret can be opened as before.
    fn pivot_index(&self) -> usize {
        0
    }
    fn context(&self, _: &Execution) -> Result<OperationContext, StepError> {
        Ok(self.stores.clone())
    }
}

/// Rewraps all records in batches, each record by compare-and-set. A repetition finds only the records that are left.
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
        let mut remaining = u64::MAX;
        loop {
            run.check().await?;
            match stores.vault.rewrap(BATCH).await? {
                0 => return Ok(Value::Null),
                // A batch without progress would repeat forever. Either another node wraps new secrets with another key
                // just as fast, or these records cannot be opened.
                left if left >= remaining => {
                    let check = "check that all nodes have the same primary key";
                    return Err(StepError::retry(format!("{left} secrets are still wrapped by another key; {check}")));
                }
                left => remaining = left,
            }
        }
    }
    async fn undo(&self, _: &Execution, _: &mut OperationContext) -> Result<(), StepError> {
        Ok(())
    }
}
