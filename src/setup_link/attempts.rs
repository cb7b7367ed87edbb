use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counts attempts by whoever makes them, in this process alone: behind a balancer each node counts for itself.
///
/// A window begins with the first attempt and allows so many; what comes after that is told how long to wait. Bounded: when
/// very many are known, those whose window is over are forgotten, and then all.
#[derive(Debug)]
pub struct RateLimiter<K> {
    most: u32,
    window: Duration,
    known: Mutex<HashMap<K, (Instant, u32)>>,
}

/// Who is remembered at most.
const KNOWN: usize = 50_000;

impl<K: Eq + Hash> RateLimiter<K> {
    /// So many in each window.
    pub fn new(most: u32, window: Duration) -> Self {
        Self { most: most.max(1), window, known: Mutex::new(HashMap::new()) }
    }
    /// One more. `Err`: too many; how long to wait.
    pub fn attempt(&self, who: K) -> Result<(), Duration> {
        self.attempt_at(who, Instant::now())
    }

    fn attempt_at(&self, who: K, now: Instant) -> Result<(), Duration> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN {
            known.retain(|_, (since, _)| now.duration_since(*since) < self.window);
            if known.len() >= KNOWN {
                known.clear();
            }
        }
        let (since, count) = known.entry(who).or_insert((now, 0));
        if now.duration_since(*since) >= self.window {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        if *count <= self.most { Ok(()) } else { Err(self.window.saturating_sub(now.duration_since(*since))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_tries_too_often_waits_and_nobody_else_does() {
        let (attempts, start) = (RateLimiter::new(3, Duration::from_secs(60)), Instant::now());
        for _ in 0..3 {
            assert_eq!(attempts.attempt_at("mallory", start), Ok(()));
        }
        let later = start + Duration::from_secs(20);
        assert_eq!(attempts.attempt_at("mallory", later), Err(Duration::from_secs(40)));
        assert_eq!(attempts.attempt_at("ada", later), Ok(()));
        assert_eq!(attempts.attempt_at("mallory", start + Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (attempts, now) = (RateLimiter::new(1, Duration::from_secs(60)), Instant::now());
        for who in 0..3 * KNOWN {
            let _ = attempts.attempt_at(who, now);
        }
        assert!(attempts.known.lock().unwrap().len() <= KNOWN);
    }
}
