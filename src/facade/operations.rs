use crate::error::{ChangeError, StoreError};
use crate::operation::{OperationEvent, OperationId, OperationState, OperationStatus};
use crate::saga::{Observer, Recoverer, RecoveryReport};
use crate::store::journal::{Journal, Record};
use futures_core::stream::BoxStream;
use std::{fmt, sync::Arc, time::Duration};

/// Operations by id: what they intend, did, and say. Any node can ask.
#[derive(Clone)]
pub struct Operations {
    journal: Arc<dyn Journal>,
    recoverer: Recoverer,
}

impl Operations {
    pub(super) fn new(journal: Arc<dyn Journal>, recoverer: Recoverer) -> Self {
        Self { journal, recoverer }
    }
    /// One operation, ended ones included.
    pub async fn get(&self, id: OperationId) -> Result<Option<OperationState>, StoreError> {
        Ok(self.journal.read(id).await?.as_ref().map(state))
    }
    /// Everything that has not ended, oldest first.
    pub async fn open(&self) -> Result<Vec<OperationState>, StoreError> {
        Ok(self.journal.open().await?.iter().map(state).collect())
    }
    /// Events after `seq` (0: all), as they are written, on whichever node; ends when the operation ends, is parked or
    /// waits for its next try. Follows, never drives: dropping it changes nothing.
    pub fn events(&self, id: OperationId, after: i64) -> BoxStream<'static, Result<OperationEvent, StoreError>> {
        let journal = self.journal.clone();
        Box::pin(async_stream::try_stream! {
            let (mut after, mut pause) = (after, Duration::from_millis(20));
            loop {
                // Asked before the events: what ends after this is seen in the next round.
                let settled = journal.read(id).await?.is_none_or(|r| r.is_settled());
                let events = journal.events(id, after, 100).await?;
                let full = events.len() == 100;
                pause = if events.is_empty() { (pause * 3 / 2).min(Duration::from_millis(250)) } else { Duration::from_millis(20) };
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
    /// Follows an operation to its end.
    pub(super) async fn follow(&self, id: OperationId, observer: &Observer) -> Result<Record, StoreError> {
        use futures_util::TryStreamExt;
        let mut events = self.events(id, 0);
        while let Some(event) = events.try_next().await? {
            observer.see(&event);
        }
        self.journal.read(id).await?.ok_or_else(|| StoreError::conflict("no such operation"))
    }
    /// Lets a parked operation go on, and drives it.
    ///
    /// # Errors
    /// `Conflict` if it is not parked.
    pub async fn resume(&self, id: OperationId) -> Result<OperationState, StoreError> {
        let parked = self.journal.unpark(id, false).await?;
        self.drive(parked).await
    }
    /// Undoes a parked operation.
    ///
    /// # Errors
    /// [`ChangeError::Landlord`] with `Conflict` if it is not parked, or is beyond its point of no return.
    pub async fn undo(&self, id: OperationId) -> Result<OperationState, ChangeError> {
        let record = self.journal.read(id).await?.ok_or(ChangeError::Unknown)?;
        let undoable = self.recoverer.saga(&record.kind).is_some_and(|s| s.can_undo(&record));
        if !undoable || record.status != OperationStatus::Parked {
            return Err(StoreError::conflict("only a parked operation before its point of no return is undone").into());
        }
        let parked = self.journal.unpark(id, true).await?;
        Ok(self.drive(parked).await?)
    }
    async fn drive(&self, record: Record) -> Result<OperationState, StoreError> {
        let outcome = self.recoverer.resume(record.id).await?;
        Ok(outcome.map_or_else(|| state(&record), |o| state(&o.record)))
    }
    /// One pass over what dead workers left; [`Tenantry::run`](super::Tenantry::run) does this for ever.
    pub async fn recover(&self) -> Result<RecoveryReport, StoreError> {
        self.recoverer.pass().await
    }
}
/// As the record tells it, and the name that was taken.
fn state(record: &Record) -> OperationState {
    OperationState { taken: record.failure().and_then(|failure| failure.taken), ..record.state() }
}
impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Operations(..)")
    }
}
