use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// After a failure it is left alone for so long, by all but one who tries.
const AWAY: Duration = Duration::from_secs(1);

/// Something that there is a substitute for: when it has failed, and so when it is tried again.
#[derive(Default)]
pub(crate) struct CircuitBreaker(Mutex<Option<Instant>>);

impl CircuitBreaker {
    /// Whether to try: always if it is there, and else one caller each second.
    pub(crate) fn is_tried(&self, now: Instant) -> bool {
        let mut until = self.until();
        match *until {
            None => true,
            Some(at) if now < at => false,
            Some(_) => {
                *until = Some(now + AWAY);
                true
            }
        }
    }
    pub(crate) fn failed(&self, now: Instant) {
        *self.until() = Some(now + AWAY);
    }
    pub(crate) fn is_back(&self) {
        *self.until() = None;
    }
    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        // Nothing under this lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_failed_is_tried_by_one_each_second_until_it_is_back() {
        let (circuit_breaker, start) = (CircuitBreaker::default(), Instant::now());
        assert!(circuit_breaker.is_tried(start) && circuit_breaker.is_tried(start));
        circuit_breaker.failed(start);
        assert!(!circuit_breaker.is_tried(start + AWAY / 2));
        let later = start + AWAY;
        assert!(circuit_breaker.is_tried(later) && !circuit_breaker.is_tried(later), "one alone");
        circuit_breaker.is_back();
        assert!(circuit_breaker.is_tried(later) && circuit_breaker.is_tried(later));
    }
}
