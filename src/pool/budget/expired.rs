//! Closes idle connections that have reached their lifetime or their idle timeout.
//!
//! An expired session is replaced at its next checkout. The ones that no caller checks out are closed here: the facade's
//! background work calls [`PgServer::close_expired`], and so does an acquire that finds no connection ready for use. So
//! no session needs a timer or a task of its own.
use super::opener::PgServer;
use crate::pool::clock::coarse_time;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Least time between two looks for expired sessions that acquires make.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl PgServer {
    /// Closes all idle connections that have expired, and frees the slots of lent ones that were closed or detached.
    pub(crate) fn close_expired(self: &Arc<Self>) {
        self.sweep();
        let now = coarse_time();
        let expired = self.lock_scheduler().evict_where(|conn| conn.is_expired(now));
        expired
            .into_iter()
            .for_each(|(slot, conn)| self.spawn_close(slot, conn, "its lifetime or its idle time was over"));
    }

    /// [`close_expired`](Self::close_expired), but at most once per [`SWEEP_INTERVAL`].
    pub(super) fn close_expired_if_due(self: &Arc<Self>, now: Duration) {
        let due = &self.opener.next_sweep;
        let (now, next) = (now.as_secs(), (now + SWEEP_INTERVAL).as_secs());
        let seen = due.load(Relaxed);
        if seen <= now && due.compare_exchange(seen, next, Relaxed, Relaxed).is_ok() {
            self.close_expired();
        }
    }
}
