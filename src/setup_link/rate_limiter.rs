//! [`RateLimiter`]: limits the attempts of each key, such as a client address or a tenant.
//!
//! `web::SetupRoutes` uses one limiter by client address and one by tenant, to slow down guessing of tokens.
//!
//! Invariants:
//! - Counters are local to the process: behind a load balancer each node counts for itself.
//! - At most 50 000 keys are stored, so a client with many addresses cannot use up the memory.
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Limits the attempts of each key within a time window, in this process. Behind a load balancer each node counts for
/// itself.
///
/// The window of a key begins with its first attempt. After the allowed number of attempts each further one is refused
/// with the time until the window ends. The limiter stores at most 50 000 keys. When it is full it removes the keys
/// whose window is over. If that is not enough it removes all keys, which allows their attempts again.
#[derive(Debug)]
pub(crate) struct RateLimiter<K> {
    max_attempts: u32,
    window: Duration,
    counters: Mutex<HashMap<K, (Instant, u32)>>,
}

/// Maximum number of keys that are stored.
const MAX_COUNTERS: usize = 50_000;

impl<K: Eq + Hash> RateLimiter<K> {
    /// Allows `max_attempts` attempts of each key per `window`. Zero attempts count as one.
    pub(crate) fn new(max_attempts: u32, window: Duration) -> Self {
        Self { max_attempts: max_attempts.max(1), window, counters: Mutex::new(HashMap::new()) }
    }
    /// Counts one attempt of this key.
    ///
    /// # Errors
    /// The time until the key's window ends, if it has used up its attempts.
    pub(crate) fn attempt(&self, key: K) -> Result<(), Duration> {
        self.attempt_at(key, Instant::now())
    }

    fn attempt_at(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if counters.len() >= MAX_COUNTERS {
            counters.retain(|_, (since, _)| now.duration_since(*since) < self.window);
            if counters.len() >= MAX_COUNTERS {
                counters.clear();
            }
        }
        let (since, count) = counters.entry(key).or_insert((now, 0));
        if now.duration_since(*since) >= self.window {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        if *count <= self.max_attempts { Ok(()) } else { Err(self.window.saturating_sub(now.duration_since(*since))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempt_refuses_only_the_key_that_exceeds_the_limit() {
        let (limiter, start) = (RateLimiter::new(3, Duration::from_secs(60)), Instant::now());
        for _ in 0..3 {
            assert_eq!(limiter.attempt_at("mallory", start), Ok(()));
        }
        let later = start + Duration::from_secs(20);
        assert_eq!(limiter.attempt_at("mallory", later), Err(Duration::from_secs(40)));
        assert_eq!(limiter.attempt_at("ada", later), Ok(()));
        assert_eq!(limiter.attempt_at("mallory", start + Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn attempt_bounds_the_number_of_stored_keys() {
        let (limiter, now) = (RateLimiter::new(1, Duration::from_secs(60)), Instant::now());
        for key in 0..3 * MAX_COUNTERS {
            let _ = limiter.attempt_at(key, now);
        }
        assert!(limiter.counters.lock().unwrap().len() <= MAX_COUNTERS, "the limiter stores too many keys");
    }
}
