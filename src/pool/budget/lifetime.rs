//! How long a session may live and how long it may stay idle. Pure: the caller passes the time in.
//!
//! `opener` draws the limits of each session, and `expired` finds the sessions that have reached one.
use std::time::Duration;

/// Each limit is shortened by up to a fifth, so that sessions that were opened together do not expire together. This is
/// the number of steps in that fifth.
const JITTER_STEPS: u32 = 100;

/// The limits of each session. `None`: no limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetimes {
    /// Maximum time since the session was opened.
    pub(crate) max_lifetime: Option<Duration>,
    /// Maximum time without a statement.
    pub(crate) idle_timeout: Option<Duration>,
}

/// When one session expires.
#[derive(Clone, Copy)]
pub(super) struct Expiry {
    /// Coarse time.
    at: Duration,
    max_idle: Duration,
}

impl Lifetimes {
    /// Draws the limits of a session that was opened at the coarse time `now`.
    pub(super) fn draw(&self, now: Duration) -> Expiry {
        let lifetime = self.max_lifetime.map_or(Duration::MAX, shorten);
        Expiry { at: now.saturating_add(lifetime), max_idle: self.idle_timeout.map_or(Duration::MAX, shorten) }
    }
}

fn shorten(limit: Duration) -> Duration {
    limit - limit / (5 * JITTER_STEPS) * rand::random_range(0..=JITTER_STEPS)
}

impl Expiry {
    /// Whether the session has reached its lifetime. Cheap: called at each checkout of an idle connection.
    #[inline]
    pub(super) fn is_too_old(&self, now: Duration) -> bool {
        now >= self.at
    }
    /// Whether the session has reached its lifetime, or has been idle for too long since `used_at`.
    pub(super) fn is_over(&self, used_at: Duration, now: Duration) -> bool {
        self.is_too_old(now) || now.saturating_sub(used_at) >= self.max_idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_limits_are_at_most_a_fifth_shorter_and_differ() {
        let (lifetime, idle) = (Duration::from_secs(1000), Duration::from_secs(100));
        let limits = Lifetimes { max_lifetime: Some(lifetime), idle_timeout: Some(idle) };
        let now = Duration::from_secs(7);
        let drawn: Vec<_> = (0..50).map(|_| limits.draw(now)).collect();
        for expiry in &drawn {
            assert!((now + lifetime * 4 / 5..=now + lifetime).contains(&expiry.at), "lifetime until {:?}", expiry.at);
            assert!((idle * 4 / 5..=idle).contains(&expiry.max_idle), "idle for {:?}", expiry.max_idle);
        }
        assert!(drawn.iter().any(|e| e.at != drawn[0].at), "all sessions expire at the same time");
        let unlimited = Lifetimes { max_lifetime: None, idle_timeout: None }.draw(now);
        assert_eq!((unlimited.at, unlimited.max_idle), (Duration::MAX, Duration::MAX));
    }
}
