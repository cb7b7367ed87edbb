//! A monotonic clock that is cheap enough to read on every cache hit and every checkout.
//!
//! Reading the exact time costs as much as the rest of a cache hit. Linux offers `CLOCK_MONOTONIC_COARSE`, which the
//! kernel updates only at its ticks. Reading it costs about a fifth, and the result lags by at most one tick (1 to
//! 10 ms). The lookup cache uses [`Clock`] to age its answers; connections use [`coarse_time`] to age idle sessions. On
//! other systems the coarse clock is the exact one.
use std::time::{Duration, Instant};

pub(crate) struct Clock {
    start: Instant,
    #[cfg(target_os = "linux")]
    coarse_start: Duration,
}

impl Clock {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            #[cfg(target_os = "linux")]
            coarse_start: coarse_time(),
        }
    }
    /// Nanoseconds from the start of this clock to `at`; zero if `at` is earlier.
    pub(crate) fn nanoseconds_at(&self, at: Instant) -> u64 {
        to_nanoseconds(at.saturating_duration_since(self.start))
    }
    /// Nanoseconds since the start of this clock, by the exact clock.
    pub(crate) fn exact_now(&self) -> u64 {
        self.nanoseconds_at(Instant::now())
    }
    /// Nanoseconds since the start of this clock, at most one kernel tick behind [`exact_now`](Self::exact_now).
    #[cfg(target_os = "linux")]
    pub(crate) fn coarse_now(&self) -> u64 {
        to_nanoseconds(coarse_time().saturating_sub(self.coarse_start))
    }
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn coarse_now(&self) -> u64 {
        self.exact_now()
    }
}

fn to_nanoseconds(time: Duration) -> u64 {
    time.as_secs() * 1_000_000_000 + u64::from(time.subsec_nanos())
}

/// Time since an unspecified moment before the first call. Only differences between two results are meaningful.
#[cfg(target_os = "linux")]
pub(crate) fn coarse_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn coarse_time() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarse_clock_advances_within_a_tick_of_the_exact_clock() {
        // Far above a real tick: on a shared machine the kernel's ticks come late.
        const TICK: u64 = 100_000_000;
        let clock = Clock::new(Instant::now());
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(300) {
            let (before, coarse, after) = (clock.exact_now(), clock.coarse_now(), clock.exact_now());
            assert!(
                coarse + TICK >= before && coarse <= after + TICK,
                "coarse time {coarse} ns is more than a tick away from the exact time {before}..{after} ns"
            );
        }
        assert!(clock.coarse_now() >= 300_000_000 - TICK, "the coarse clock did not advance by 300 ms");
    }
}
