//! [`Operations`]: reads operations from the journal, follows their events, and continues or ends open ones.
//!
//! An application reaches it by [`Tenantry::operations`](super::Tenantry::operations), for example for a progress page
//! or a tool for operators.
//!
//! Invariants:
//! - Reading and following never change an operation, and work on every node.
//! - Only a parked operation can be resumed or undone by a caller. Every open operation can be abandoned.
use crate::cluster::OperationContext;
use crate::error::{OperationError, Rows, StoreError};
use crate::names::{MAX_REASON, check_text};
use crate::operation::{OperationEvent, OperationId, OperationState, OperationStatus, Subject};
use crate::operations::abandon::{Abandoned, abandon};
use crate::saga::{AnySaga, Observer, Recoverer, RecoveryReport};
use crate::store::journal::{Journal, Record};
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

/// Pauses between two reads of the journal while no event comes.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// Maximum events that one read returns.
const EVENTS_PER_READ: u32 = 100;

/// The operations of all nodes, as the journal in the landlord has them.
#[derive(Clone)]
pub struct Operations {
    journal: Arc<dyn Journal>,
    stores: OperationContext,
    recoverer: Recoverer,
}

impl Operations {
    pub(super) fn new(stores: OperationContext, recoverer: Recoverer) -> Self {
        Self { journal: stores.journal.clone(), stores, recoverer }
    }
    /// Reads one operation, whether or not it has ended. `None` if no operation has this id.
    pub async fn get(&self, id: OperationId) -> Result<Option<OperationState>, StoreError> {
        Ok(self.journal.read(id).await?.as_ref().map(to_state))
    }
    /// Lists the operations that have not ended, oldest first. An operation whose row cannot be parsed is in
    /// [`Rows::unreadable`].
    pub async fn open(&self) -> Result<Rows<OperationState>, StoreError> {
        Ok(self.journal.open().await?.map(|record| to_state(&record)))
    }
    /// Lists all operations of a tenant, a server or another subject, including ended ones, oldest first.
    pub async fn history(&self, subject: &Subject) -> Result<Rows<OperationState>, StoreError> {
        Ok(self.journal.history(subject).await?.map(|record| to_state(&record)))
    }
    /// Streams the events of an operation, whichever node writes them. It starts with the event after sequence number
    /// `after` (0: all events). The stream polls the journal every 20 to 250 ms and ends when the operation ends, is
    /// parked or waits for its next attempt. Dropping the stream does not affect the operation.
    ///
    /// An event whose row cannot be parsed is an item with [`StoreError::Corrupt`], and the stream continues after it,
    /// unless a hundred such rows follow each other. Any other error is the last item.
    pub fn events(&self, id: OperationId, after: i64) -> BoxStream<'static, Result<OperationEvent, StoreError>> {
        let journal = self.journal.clone();
        Box::pin(async_stream::stream! {
            let (mut after, mut pause, mut reported) = (after, FIRST_PAUSE, HashSet::new());
            loop {
                let (settled, events) = match read_events(&*journal, id, after).await {
                    Ok(read) => read,
                    Err(error) => {
                        yield Err(error);
                        break;
                    }
                };
                let Rows { readable, unreadable } = events;
                let rows = readable.len() + unreadable.len();
                let full = rows == EVENTS_PER_READ as usize && !readable.is_empty();
                pause = if readable.is_empty() { (pause * 3 / 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
                // The next read may return an unreadable row again, because it begins after the last readable one.
                for row in unreadable {
                    if reported.insert(row.id().to_owned()) {
                        yield Err(row.into());
                    }
                }
                for event in readable {
                    after = event.seq;
                    yield Ok(event);
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
        let mut events = self.events(id, 0);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => observer.notify(&event),
                Err(StoreError::Corrupt(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.journal
            .read(id)
            .await?
            .ok_or_else(|| StoreError::conflict(format!("operation {id} is not in the journal")))
    }
    /// Continues a parked operation in the direction that it had: forward, or backward if it was being undone. Drives it
    /// until it ends or waits, and returns its state after that.
    ///
    /// # Errors
    /// [`OperationError::NotParked`] or [`OperationError::Over`] if it is not parked. [`OperationError::UnknownKind`] if
    /// this process does not have its steps.
    ///
    /// # Cancel safety
    /// Dropping the future stops the work as a crash would: recovery continues the operation.
    pub async fn resume(&self, id: OperationId) -> Result<OperationState, OperationError> {
        let record = self.parked(id).await?;
        self.saga(&record)?;
        let continued = match record.is_backward() {
            true => self.journal.undo_parked(id).await,
            false => self.journal.resume_parked(id).await,
        };
        self.drive_unparked(id, continued).await
    }
    /// Continues an open operation that no worker drives: its lease has expired, or its worker is known to have died, and
    /// it does not wait for its next attempt. [`run`](super::Tenantry::run) does this by itself; call it from a program
    /// that does not run it. Returns the state after that, and `None` if the operation cannot be taken over now: another
    /// worker drives it, it waits, or it is parked.
    ///
    /// The program needs the same migrations and steps as the one that began the operation: its own steps run.
    ///
    /// # Errors
    /// [`OperationError::Over`] if the operation has ended. [`OperationError::UnknownKind`] if this process does not
    /// have its steps.
    ///
    /// # Cancel safety
    /// As [`resume`](Self::resume).
    pub async fn take_over(&self, id: OperationId) -> Result<Option<OperationState>, OperationError> {
        let record = self.open_record(id).await?;
        self.saga(&record)?;
        Ok(self.recoverer.resume(id).await?.map(|outcome| to_state(&outcome.record)))
    }
    /// Undoes a parked operation. Returns its state after that.
    ///
    /// # Errors
    /// [`OperationError::NotParked`] or [`OperationError::Over`] if it is not parked. [`OperationError::PastPivot`] if it
    /// has begun its pivot step, after which it can only go forward.
    ///
    /// # Cancel safety
    /// As [`resume`](Self::resume).
    pub async fn undo(&self, id: OperationId) -> Result<OperationState, OperationError> {
        let record = self.parked(id).await?;
        if !self.saga(&record)?.can_undo(&record) {
            return Err(OperationError::PastPivot { operation: id });
        }
        let undone = self.journal.undo_parked(id).await;
        self.drive_unparked(id, undone).await
    }
    /// Lets an open operation continue without one of its steps, or without the undo of the step if it is being undone.
    /// For a delivery that can never succeed, or a compensation that fails for good. The application then takes care of
    /// what the step was for. Drives the operation until it ends or waits, and returns its state after that. A worker
    /// that is in the step is replaced; what it has already done stays.
    ///
    /// A step that was skipped has no output, so a later step that reads its output fails.
    ///
    /// `reason` names the person and the cause. It is stored in the operation's history, so it must not contain a
    /// secret.
    ///
    /// # Errors
    /// [`OperationError::NotSkippable`] unless the step is follow-up work or a step of the application.
    /// [`OperationError::UnknownStep`] if the operation has no such step, or is past it.
    ///
    /// # Cancel safety
    /// As [`resume`](Self::resume).
    pub async fn skip_step(&self, id: OperationId, step: &str, reason: &str) -> Result<OperationState, OperationError> {
        check_reason(reason)?;
        let record = self.open_record(id).await?;
        let saga = self.saga(&record)?;
        let at = saga.step_names().iter().position(|name| *name == step);
        let is_open = |at: usize| match record.is_backward() {
            true => at < record.intended as usize,
            false => at >= record.done as usize,
        };
        if !at.is_some_and(is_open) {
            return Err(OperationError::UnknownStep { operation: id, step: step.into() });
        }
        if !saga.is_skippable(step) {
            return Err(OperationError::NotSkippable { operation: id, step: step.into() });
        }
        let skipped = self.journal.skip_step(id, step, reason).await;
        self.drive_unparked(id, skipped).await
    }
    /// Ends an open operation without undoing it, whatever its status and whichever worker has it. It is the last
    /// resort: try [`resume`](Self::resume), [`undo`](Self::undo) and [`skip_step`](Self::skip_step) first. Returns what
    /// the operation may have left. It frees the operation's lane and its idempotency key.
    ///
    /// The landlord refuses all further writes of the operation's worker. A worker that is alive can still act on a
    /// server until it learns of this, which takes at most a third of its lease. The next operation on the tenant ends
    /// its sessions or waits for them.
    ///
    /// The tenant keeps the status that it has. A tenant in `provisioning` can be purged with `force()`; every other
    /// operation can be begun again. Before another `rotate_server` call `set_up()` of that server, because one of the
    /// provisioner's logins may have a password that the vault does not have.
    ///
    /// `reason` names the person and the cause. It is stored in the operation's history, so it must not contain a
    /// secret.
    ///
    /// # Errors
    /// [`OperationError::Over`] if the operation has ended in another way.
    ///
    /// # Cancel safety
    /// If the future is dropped, the operation is either open or abandoned. Call again: a second call returns the same.
    pub async fn abandon(&self, id: OperationId, reason: &str) -> Result<Abandoned, OperationError> {
        check_reason(reason)?;
        let record = match self.open_record(id).await {
            Err(OperationError::Over { status: OperationStatus::Abandoned, .. }) => self.record(id).await?,
            open => open?,
        };
        let saga = self.recoverer.saga(&record.kind).map(|saga| &**saga);
        match abandon(&self.stores, saga, id, reason).await {
            Err(OperationError::Landlord(StoreError::Conflict(error))) => {
                self.open_record(id).await?;
                Err(StoreError::Conflict(error).into())
            }
            abandoned => abandoned,
        }
    }

    async fn record(&self, id: OperationId) -> Result<Record, OperationError> {
        self.journal.read(id).await?.ok_or(OperationError::Unknown { operation: id })
    }
    async fn open_record(&self, id: OperationId) -> Result<Record, OperationError> {
        let record = self.record(id).await?;
        match record.status.is_over() {
            true => Err(OperationError::Over { operation: id, status: record.status }),
            false => Ok(record),
        }
    }
    async fn parked(&self, id: OperationId) -> Result<Record, OperationError> {
        let record = self.open_record(id).await?;
        match record.status {
            OperationStatus::Parked => Ok(record),
            status => Err(OperationError::NotParked { operation: id, status }),
        }
    }
    fn saga(&self, record: &Record) -> Result<&dyn AnySaga, OperationError> {
        let unknown = || OperationError::UnknownKind { operation: record.id, kind: record.kind.clone() };
        self.recoverer.saga(&record.kind).map(|saga| &**saga).ok_or_else(unknown)
    }
    /// Drives an operation that was just released. A conflict means that another caller was faster.
    async fn drive_unparked(
        &self, id: OperationId, released: Result<Record, StoreError>,
    ) -> Result<OperationState, OperationError> {
        match released {
            Ok(record) => Ok(self.drive(record).await?),
            Err(StoreError::Conflict(error)) => {
                self.parked(id).await?;
                Err(StoreError::Conflict(error).into())
            }
            Err(error) => Err(error.into()),
        }
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
/// Reads whether the operation has settled, and its events after `after`. It reads the state first: in the other order
/// the last events of an operation that ends in between would be lost.
async fn read_events(
    journal: &dyn Journal, id: OperationId, after: i64,
) -> Result<(bool, Rows<OperationEvent>), StoreError> {
    let settled = journal.read(id).await?.is_none_or(|r| r.is_settled());
    Ok((settled, journal.events(id, after, EVENTS_PER_READ).await?))
}

/// Fails for a reason that is empty, too long, or not storable as text.
fn check_reason(reason: &str) -> Result<(), OperationError> {
    let is_stated = || check_text(reason.trim(), 1, MAX_REASON);
    check_text(reason, 0, MAX_REASON).and_then(|()| is_stated()).map_err(OperationError::Reason)
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
