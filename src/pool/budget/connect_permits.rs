//! Connect permits: how many connections a server pool opens at the same time.
//!
//! A caller takes a [`ConnectPermit`] before it opens a connection and drops it afterwards. The number of permits is
//! fixed, or a [`PermitController`] adapts it to the time that opening a connection takes.
//!
//! Invariant: at most as many permits are out as the limit allows. After the limit was lowered, returned permits are
//! withdrawn until that holds again.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

mod controller;
#[cfg(test)]
mod simulation;
pub(super) use controller::MIN_PERMITS;
use controller::PermitController;

/// How the number of connect permits is chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PermitLimit {
    /// Always this many.
    Fixed(usize),
    /// From [`MIN_PERMITS`] to a third of the pool's slots, by the time that opening a connection takes. Connections
    /// that are being opened occupy slots, which the tenants' idle connections then lack.
    Adaptive,
}

pub(crate) struct ConnectPermits {
    semaphore: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    /// `None`: the limit is fixed.
    controller: Option<PermitController>,
    limit: usize,
    /// Permits to withdraw when they are returned.
    surplus: usize,
}

/// The right to open one connection. Dropping it returns it.
pub(crate) struct ConnectPermit {
    permits: Arc<ConnectPermits>,
    permit: Option<OwnedSemaphorePermit>,
}

impl ConnectPermits {
    /// The permits of a server pool with `slots` slots.
    pub(super) fn new(limit: PermitLimit, slots: usize) -> Self {
        let (limit, controller) = match limit {
            PermitLimit::Fixed(limit) => (limit.max(1), None),
            PermitLimit::Adaptive => (MIN_PERMITS, Some(PermitController::new(max_permits(slots)))),
        };
        let state = Mutex::new(State { controller, limit, surplus: 0 });
        Self { semaphore: Arc::new(Semaphore::new(limit)), state }
    }

    /// Waits for a permit, first come, first served.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the queue.
    pub(super) async fn acquire(self: Arc<Self>) -> Option<ConnectPermit> {
        let permit = self.semaphore.clone().acquire_owned().await.ok()?;
        Some(ConnectPermit { permits: self, permit: Some(permit) })
    }
    /// Takes a permit if one is free.
    pub(super) fn try_acquire(self: &Arc<Self>) -> Option<ConnectPermit> {
        let permit = self.semaphore.clone().try_acquire_owned().ok()?;
        Some(ConnectPermit { permits: self.clone(), permit: Some(permit) })
    }
    /// How many connections may be opened at the same time now.
    pub(super) fn limit(&self) -> usize {
        self.lock().limit
    }

    /// Reports that opening a connection took this long.
    pub(super) fn record(&self, took: Duration) {
        let all_in_use = self.semaphore.available_permits() == 0;
        self.adapt(|controller| controller.record(took, all_in_use));
    }
    /// Reports that the server could not be reached, or that it has ended the sessions of several tenants at once. It
    /// is probably starting: open few connections until it answers as fast as before.
    pub(super) fn reset(&self) {
        self.adapt(PermitController::reset);
    }
    /// Reports a new number of slots.
    pub(super) fn resize(&self, slots: usize) {
        self.adapt(|controller| controller.set_max(max_permits(slots)));
    }

    /// Changes the limit to the controller's new one.
    fn adapt(&self, change: impl FnOnce(&mut PermitController)) {
        let mut state = self.lock();
        let Some(controller) = &mut state.controller else { return };
        change(controller);
        let new = controller.limit();
        let old = std::mem::replace(&mut state.limit, new);
        if new > old {
            let kept = state.surplus.min(new - old);
            state.surplus -= kept;
            self.semaphore.add_permits(new - old - kept);
        } else {
            state.surplus += (old - new) - self.semaphore.forget_permits(old - new);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned lock is safe to use: no code panics between two related changes under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectPermit {
    fn drop(&mut self) {
        let mut state = self.permits.lock();
        if state.surplus > 0
            && let Some(permit) = self.permit.take()
        {
            state.surplus -= 1;
            permit.forget();
        }
    }
}

/// The most permits of a pool with this many slots.
fn max_permits(slots: usize) -> usize {
    (slots / 3).max(MIN_PERMITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn permits_that_were_lowered_are_withdrawn_when_they_are_returned() {
        let permits = Arc::new(ConnectPermits::new(PermitLimit::Adaptive, 90));
        let mut out = vec![];
        while out.len() < 30 {
            while let Some(permit) = permits.try_acquire() {
                out.push(permit);
            }
            permits.record(Duration::from_millis(95));
        }
        assert_eq!(permits.limit(), 30, "steady connect times did not raise the limit to a third of the slots");
        permits.reset();
        assert_eq!(permits.limit(), MIN_PERMITS, "a failover did not lower the limit");
        out.truncate(MIN_PERMITS);
        assert!(permits.try_acquire().is_none(), "a permit above the lowered limit was given out again");
        out.pop();
        assert!(permits.try_acquire().is_some(), "a returned permit within the limit was withdrawn");
    }
}
