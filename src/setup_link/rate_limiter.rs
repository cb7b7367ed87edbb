//! [`RateLimiter`]: limits the attempts of each key, such as a client address or a tenant.
//!
//! `Tenantry` has one limiter by client address and one by tenant, to slow down guessing of tokens. Every
//! `web::SetupRoutes` counts in them, so that the workers of a server, which each build their own routes, count together.
//!
//! Invariants:
//! - Counters are local to the process: behind a load balancer each node counts for itself.
//! - At most 50 000 keys are stored, so a client with many addresses cannot use up the memory.
use crate::tenant::TenantId;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
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
    window: Duration,
    counters: Mutex<HashMap<K, (Instant, u32)>>,
}

/// The attempts of this process to follow setup links.
#[derive(Debug)]
pub(crate) struct LinkAttempts {
    pub(crate) by_client: RateLimiter<IpAddr>,
    pub(crate) by_tenant: RateLimiter<TenantId>,
}

impl Default for LinkAttempts {
    /// Attempts count for a minute.
    fn default() -> Self {
        let window = Duration::from_secs(60);
        Self { by_client: RateLimiter::new(window), by_tenant: RateLimiter::new(window) }
    }
}

/// Maximum number of keys that are stored.
const MAX_COUNTERS: usize = 50_000;

impl<K: Eq + Hash> RateLimiter<K> {
    /// Counts the attempts of each key per `window`.
    pub(crate) fn new(window: Duration) -> Self {
        Self { window, counters: Mutex::new(HashMap::new()) }
    }
    /// Counts one attempt of this key, which has `max_attempts` in each window. Zero count as one.
    ///
    /// # Errors
    /// The time until the key's window ends, if it has used up its attempts.
    pub(crate) fn attempt(&self, key: K, max_attempts: u32) -> Result<(), Duration> {
        self.attempt_at(key, max_attempts, Instant::now())
    }

    fn attempt_at(&self, key: K, max_attempts: u32, now: Instant) -> Result<(), Duration> {
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
        if *count <= max_attempts.max(1) { Ok(()) } else { Err(self.window.saturating_sub(now.duration_since(*since))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempt_refuses_only_the_key_that_exceeds_the_limit() {
        let (limiter, start) = (RateLimiter::new(Duration::from_secs(60)), Instant::now());
        for _ in 0..3 {
            assert_eq!(limiter.attempt_at("mallory", 3, start), Ok(()));
        }
        let later = start + Duration::from_secs(20);
        assert_eq!(limiter.attempt_at("mallory", 3, later), Err(Duration::from_secs(40)));
        assert_eq!(limiter.attempt_at("ada", 3, later), Ok(()));
        assert_eq!(limiter.attempt_at("mallory", 3, start + Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn attempt_bounds_the_number_of_stored_keys() {
        let (limiter, now) = (RateLimiter::new(Duration::from_secs(60)), Instant::now());
        for key in 0..3 * MAX_COUNTERS {
            let _ = limiter.attempt_at(key, 1, now);
        }
        assert!(limiter.counters.lock().unwrap().len() <= MAX_COUNTERS, "the limiter stores too many keys");
    }
}
