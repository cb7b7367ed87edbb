//! The one step of a rekey.
use crate::cluster::OperationContext;
use crate::error::StepError;
use crate::saga::{Execution, SagaStep};
use async_trait::async_trait;
use serde_json::Value;

/// Records that one call of the vault rewraps.
const BATCH: u32 = 100;

/// Rewraps all records in batches, each record by compare-and-set. A repetition finds only the records that are left.
pub(super) struct Rewrap;
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
                // Rows that a version without codes has written get one, unless the installation is sealed already.
                0 => {
                    stores.verified.sign_all(run.fencing_token()).await?;
                    return Ok(Value::Null);
                }
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
