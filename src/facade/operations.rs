//! [`Operations`]: reads operations from the journal, follows their events, and resumes or undoes parked ones.
//!
//! An application reaches it by [`Tenantry::operations`](super::Tenantry::operations), for example for a progress page
//! or a tool for operators.
//!
//! Invariants:
//! - Reading and following never change an operation, and work on every node.
//! - Only a parked operation can be resumed or undone by a caller.
use crate::error::{ChangeError, StoreError};
use crate::operation::{OperationEvent, OperationId, OperationState, OperationStatus};
use crate::saga::{Observer, Recoverer, RecoveryReport};
use crate::store::journal::{Journal, Record};
use futures_core::stream::BoxStream;
use std::{fmt, sync::Arc, time::Duration};

/// Pauses between two reads of the journal while no event comes.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// The operations of all nodes, as the journal in the landlord has them.
#[derive(Clone)]
pub struct Operations {
    journal: Arc<dyn Journal>,
    recoverer: Recoverer,
}

impl Operations {
    pub(super) fn new(journal: Arc<dyn Journal>, recoverer: Recoverer) -> Self {
        Self { journal, recoverer }
    }
    /// Reads one operation, whether or not it has ended. `None` if no operation has this id.
    pub async fn get(&self, id: OperationId) -> Result<Option<OperationState>, StoreError> {
        Ok(self.journal.read(id).await?.as_ref().map(to_state))
    }
    /// Lists the operations that have not ended, oldest first.
    pub async fn open(&self) -> Result<Vec<OperationState>, StoreError> {
        Ok(self.journal.open().await?.iter().map(to_state).collect())
    }
    /// Streams the events of an operation, whichever node writes them. It starts with the event after sequence number
    /// `after` (0: all events). The stream polls the journal every 20 to 250 ms and ends when the operation ends, is
    /// parked or waits for its next attempt. Dropping the stream does not affect the operation.
    pub fn events(&self, id: OperationId, after: i64) -> BoxStream<'static, Result<OperationEvent, StoreError>> {
        let journal = self.journal.clone();
        Box::pin(async_stream::try_stream! {
            let (mut after, mut pause) = (after, FIRST_PAUSE);
            loop {
                // Read the state before the events. In the other order the last events of an operation that ends in
                // between would be lost.
                let settled = journal.read(id).await?.is_none_or(|r| r.is_settled());
                let events = journal.events(id, after, 100).await?;
                let full = events.len() == 100;
                pause = if events.is_empty() { (pause * 3 / 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
                for event in events {
                    after = event.seq;
                    yield event;
                }
                if settled && !full {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
        })
    }
    /// Reports the events of an operation to `observer` until it has settled, then reads its record.
    pub(super) async fn follow(&self, id: OperationId, observer: &Observer) -> Result<Record, StoreError> {
        use futures_util::TryStreamExt;
        let mut events = self.events(id, 0);
        while let Some(event) = events.try_next().await? {
            observer.notify(&event);
        }
        self.journal
            .read(id)
            .await?
            .ok_or_else(|| StoreError::conflict(format!("operation {id} is not in the journal")))
    }
    /// Resumes a parked operation and drives it until it ends or waits. Returns its state after that.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if it is not parked.
    pub async fn resume(&self, id: OperationId) -> Result<OperationState, StoreError> {
        let parked = self.journal.resume_parked(id).await?;
        self.drive(parked).await
    }
    /// Undoes a parked operation. Returns its state after that.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`] if no operation has this id. [`ChangeError::Landlord`] with [`StoreError::Conflict`] if
    /// it is not parked or has begun its pivot step, after which it can only go forward.
    pub async fn undo(&self, id: OperationId) -> Result<OperationState, ChangeError> {
        let record = self.journal.read(id).await?.ok_or(ChangeError::Unknown)?;
        let undoable = self.recoverer.saga(&record.kind).is_some_and(|s| s.can_undo(&record));
        if !undoable || record.status != OperationStatus::Parked {
            return Err(StoreError::conflict("only a parked operation before its pivot step can be undone").into());
        }
        let parked = self.journal.undo_parked(id).await?;
        Ok(self.drive(parked).await?)
    }
    async fn drive(&self, record: Record) -> Result<OperationState, StoreError> {
        let outcome = self.recoverer.resume(record.id).await?;
        Ok(outcome.map_or_else(|| to_state(&record), |o| to_state(&o.record)))
    }
    /// Runs one recovery pass: takes over operations whose worker has died and drives them.
    /// [`run`](super::Tenantry::run) calls this every 5 s.
    pub async fn recover(&self) -> Result<RecoveryReport, StoreError> {
        self.recoverer.recover_due().await
    }
}
/// The public state of a record, with the name that was already taken if that was the failure.
fn to_state(record: &Record) -> OperationState {
    OperationState { taken: record.failure().and_then(|failure| failure.taken), ..record.state() }
}
impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Operations(..)")
    }
}
