//! The time of a hit and of a checkout. To read the exact time costs as much as all else that a hit does. Linux has a
//! clock that is moved on at each tick of the kernel only, and costs a fifth of that: it is behind by one tick at most,
//! which is 1 to 10 ms.
use std::time::{Duration, Instant};

pub(crate) struct Clock {
    start: Instant,
    #[cfg(target_os = "linux")]
    coarse: Duration,
}

impl Clock {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            #[cfg(target_os = "linux")]
            coarse: coarse(),
        }
    }
    /// Nanoseconds since the start.
    pub(crate) fn at(&self, at: Instant) -> u64 {
        nanoseconds(at.saturating_duration_since(self.start))
    }
    pub(crate) fn exactly(&self) -> u64 {
        self.at(Instant::now())
    }
    #[cfg(target_os = "linux")]
    pub(crate) fn coarse_now(&self) -> u64 {
        nanoseconds(coarse().saturating_sub(self.coarse))
    }
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn coarse_now(&self) -> u64 {
        self.exactly()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    time.as_secs() * 1_000_000_000 + u64::from(time.subsec_nanos())
}

/// Since some moment before the first call; what it is good for are differences.
#[cfg(target_os = "linux")]
pub(crate) fn coarse() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn coarse() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rough_time_goes_on_and_is_behind_by_a_tick() {
        // On a machine that is shared, ticks come late.
        const TICK: u64 = 100_000_000;
        let clock = Clock::new(Instant::now());
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(300) {
            let (before, coarse, after) = (clock.exactly(), clock.coarse_now(), clock.exactly());
            assert!(coarse + TICK >= before && coarse <= after + TICK, "{before} {coarse} {after}");
        }
        assert!(clock.coarse_now() >= 300_000_000 - TICK);
    }
}
