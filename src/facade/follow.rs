//! Follows an operation that another worker drives, for a caller that joined it by its idempotency key.
//!
//! Invariants:
//! - If the process of the worker has died, the caller's process takes the operation over within half a second.
//! - The operation then runs in a task of the facade, as one that this process has begun.
use super::Tenantry;
use crate::error::StoreError;
use crate::operation::{LeaseHolder, OperationEvent, OperationId};
use crate::saga::Observer;
use crate::store::journal::Record;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// How often a caller that waits checks whether the operation can be taken over.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

impl Tenantry {
    /// Reports the events of an operation to `observer` until it has settled, then reads its record. Takes the
    /// operation over if no worker's lease protects it.
    ///
    /// Dropping the future does not stop the operation.
    pub(super) async fn follow(&self, id: OperationId, observer: &Observer) -> Result<Record, StoreError> {
        let (last_seq, stored) = (Arc::new(AtomicI64::new(0)), observer.clone());
        let counted = last_seq.clone();
        let counting = Observer::new(move |event| {
            counted.store(event.seq, Ordering::Relaxed);
            stored.notify(event);
        });
        tokio::select! {
            record = self.inner.operations.follow(id, &counting) => record,
            never = self.take_over_repeatedly(id, observer, &last_seq) => match never {},
        }
    }

    async fn take_over_repeatedly(
        &self, id: OperationId, observer: &Observer, last_seq: &AtomicI64,
    ) -> std::convert::Infallible {
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut reported, mut is_first) = (None, true);
        loop {
            ticks.tick().await;
            // If the landlord does not answer, the read of the events reports it to the caller.
            match self.inner.stores.journal.lease_holder(id).await {
                Ok(None) => self.take_over(id).await,
                // Most operations that are joined end within the first interval.
                Ok(Some(holder)) if !is_first && reported.as_ref() != Some(&holder.node) => {
                    self.report_holder(id, &holder, observer, last_seq.load(Ordering::Relaxed)).await;
                    reported = Some(holder.node);
                }
                Ok(Some(_)) | Err(_) => {}
            }
            is_first = false;
        }
    }

    /// Claims the operation, if it can be claimed, and drives it in a task of the facade.
    async fn take_over(&self, id: OperationId) {
        if self.is_closed() {
            return;
        }
        let inner = self.inner.clone();
        let driven = self.inner.tasks.spawn(async move {
            match inner.recoverer.resume(id).await {
                Ok(Some(outcome)) => {
                    if let Some(tenant) = outcome.record.subject.tenant() {
                        inner.resolver.invalidate(tenant);
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, operation = %id, "cannot take the operation over"),
            }
        });
        // The follower reads the result from the journal.
        let _ = driven.await;
    }

    /// Tells the observer whose lease the caller waits for. The event is not stored.
    async fn report_holder(&self, id: OperationId, holder: &LeaseHolder, observer: &Observer, seq: i64) {
        let journal = &self.inner.stores.journal;
        let (Ok(Some(record)), Ok(now)) = (journal.read(id).await, journal.now().await) else { return };
        tracing::info!(operation = %id, node = %holder.node, until = %holder.leased_until,
            "waiting for the lease of another worker");
        let step = OperationEvent::WAITING.to_owned();
        let event = OperationEvent::new(seq, id, now, step, record.status, record.done, record.total, None);
        observer.notify(&OperationEvent { waits_for: Some(holder.clone()), ..event });
    }
}
