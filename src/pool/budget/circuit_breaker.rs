//! A circuit breaker for something that has a substitute: a standby, or a login on a standby.
//!
//! `Replica` asks it before each attempt and reports the result. After a failure it rejects every attempt for one
//! second. Then it allows one attempt per second until one succeeds.
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time between two attempts while the breaker is open.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Holds the time of the next attempt after a failure; `None` while the breaker is closed.
#[derive(Default)]
pub(crate) struct CircuitBreaker(Mutex<Option<Instant>>);

impl CircuitBreaker {
    /// Whether the caller may make an attempt now. While the breaker is open, `true` also claims the attempt: the next
    /// callers get `false` for another second.
    pub(crate) fn claim_attempt(&self, now: Instant) -> bool {
        let mut retry_at = self.lock_retry_at();
        match *retry_at {
            None => true,
            Some(at) if now < at => false,
            Some(_) => {
                *retry_at = Some(now + RETRY_INTERVAL);
                true
            }
        }
    }
    /// Opens the breaker: no attempts until a second after `now`.
    pub(crate) fn record_failure(&self, now: Instant) {
        *self.lock_retry_at() = Some(now + RETRY_INTERVAL);
    }
    /// Closes the breaker: every attempt is allowed again.
    pub(crate) fn record_success(&self) {
        *self.lock_retry_at() = None;
    }
    fn lock_retry_at(&self) -> MutexGuard<'_, Option<Instant>> {
        // A poisoned lock is safe to use: no code panics while it holds this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_breaker_allows_one_attempt_per_second_until_success() {
        let (breaker, start) = (CircuitBreaker::default(), Instant::now());
        assert!(breaker.claim_attempt(start) && breaker.claim_attempt(start), "a closed breaker allows every attempt");
        breaker.record_failure(start);
        assert!(!breaker.claim_attempt(start + RETRY_INTERVAL / 2), "an attempt was allowed too soon after a failure");
        let later = start + RETRY_INTERVAL;
        assert!(breaker.claim_attempt(later) && !breaker.claim_attempt(later), "exactly one attempt is allowed");
        breaker.record_success();
        assert!(breaker.claim_attempt(later) && breaker.claim_attempt(later), "a success must close the breaker");
    }
}
