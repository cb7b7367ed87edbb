//! How the number of connect permits follows the time that opening a connection takes. Pure: no clock, no I/O.
//!
//! Opening a connection is partly work (key derivation on both sides, a new server process) and partly waiting (round
//! trips, delayed acknowledgements). While it is mostly waiting, more openings at once take hardly longer each, so the
//! limit grows each time as many connections were opened as it allows. Once the processors are busy, each opening takes
//! longer: then the limit stays, falls by one, or is halved when the median has doubled.
//!
//! How much longer an opening may take depends on what the limit has gained. With `n` times the smallest limit, and
//! openings that take `n^e` times as long, connections are opened `n^(1-e)` times as fast. The limit grows while `e` is
//! at most a quarter and falls when it is at least a half: a slot whose connection is being opened serves no query, so
//! more openings at once must pay for themselves.
//!
//! As with TCP's congestion window, the limit first doubles at each step (slow start), because a load that changes each
//! second opens too few connections for a slow rise. After the first median that makes it fall it grows by one.
use std::time::Duration;

/// The smallest limit. Four openings keep two processors busy while two of them wait.
pub(crate) const MIN_PERMITS: usize = 4;
/// At least this many openings are measured before the limit changes: a median of fewer is mostly chance.
const MIN_SAMPLES: usize = 8;
/// The limit grows while the median is at most the baseline times this power of the limit by the smallest one.
const GROW_EXPONENT: f64 = 0.25;
/// The limit falls by one when the median is at least the baseline times this power, and never doubles again.
const SHRINK_EXPONENT: f64 = 0.5;
/// Medians that differ by less than this factor may do so by chance.
const CHANCE: f64 = 1.1;
/// The limit is halved when the median is at least this multiple of the baseline.
const HALVE_ABOVE: f64 = 2.0;
/// The limit falls to [`MIN_PERMITS`] at once when the median is at least this multiple of the baseline: the server is
/// starting, or hardly reachable.
const RESET_ABOVE: f64 = 8.0;
/// The weight of a new median in the baseline, while the limit is the smallest one.
const BASELINE_WEIGHT: f64 = 0.25;

/// Chooses the limit between [`MIN_PERMITS`] and `max`.
pub(super) struct PermitController {
    limit: usize,
    max: usize,
    /// Whether the limit doubles when it grows: no median has made it fall and no failover has happened yet.
    is_slow_start: bool,
    /// Median time of an opening without contention, in µs: the moving average of the medians at the smallest limit,
    /// and never more than a later median. `None` before the first median.
    baseline: Option<f64>,
    /// The times of the openings since the last change, in µs.
    samples: Vec<u64>,
    /// How many of them ended while every permit was in use.
    saturated: usize,
}

impl PermitController {
    pub(super) fn new(max: usize) -> Self {
        Self { limit: MIN_PERMITS, max, is_slow_start: true, baseline: None, samples: vec![], saturated: 0 }
    }
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Records that an opening took this long. `all_in_use`: it ended while every permit was in use.
    pub(super) fn record(&mut self, took: Duration, all_in_use: bool) {
        self.samples.push(took.as_micros() as u64);
        self.saturated += usize::from(all_in_use);
        if self.samples.len() < self.limit.max(MIN_SAMPLES) {
            return;
        }
        let (median, is_saturated) = (median(&mut self.samples), 2 * self.saturated > self.samples.len());
        let ratio = median / self.update_baseline(median);
        self.forget_samples();
        let scale = self.limit as f64 / MIN_PERMITS as f64;
        let shrink_above = CHANCE * scale.powf(SHRINK_EXPONENT);
        let falls = self.limit > MIN_PERMITS && ratio >= shrink_above.min(HALVE_ABOVE);
        self.is_slow_start &= !falls;
        if ratio >= RESET_ABOVE {
            self.limit = MIN_PERMITS;
        } else if ratio >= HALVE_ABOVE {
            self.limit = (self.limit / 2).max(MIN_PERMITS);
        } else if ratio >= shrink_above {
            self.limit = (self.limit - 1).max(MIN_PERMITS);
        } else if ratio <= CHANCE * scale.powf(GROW_EXPONENT) && is_saturated {
            let step = if self.is_slow_start { self.limit } else { 1 };
            self.limit = (self.limit + step).min(self.max);
        }
    }

    /// Returns to the smallest limit, and grows slowly from there.
    pub(super) fn reset(&mut self) {
        self.limit = MIN_PERMITS;
        self.is_slow_start = false;
        self.forget_samples();
    }

    /// Changes the largest limit.
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max;
        self.limit = self.limit.min(max);
    }

    /// Takes a new median into account and returns the baseline.
    fn update_baseline(&mut self, median: f64) -> f64 {
        let baseline = match self.baseline {
            None => median,
            Some(baseline) if self.limit == MIN_PERMITS => baseline + (median - baseline) * BASELINE_WEIGHT,
            Some(baseline) => baseline,
        };
        // At least a microsecond, so that a ratio to it is finite.
        *self.baseline.insert(baseline.min(median).max(1.0))
    }

    fn forget_samples(&mut self) {
        self.samples.clear();
        self.saturated = 0;
    }
}

/// The median of the samples, which are put in order.
fn median(samples: &mut [u64]) -> f64 {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 30;

    /// Records openings of this many milliseconds, while every permit is in use, for so many medians.
    fn record(controller: &mut PermitController, milliseconds: u64, medians: usize) {
        for _ in 0..medians {
            controller.record(Duration::from_millis(milliseconds), true);
            while !controller.samples.is_empty() {
                controller.record(Duration::from_millis(milliseconds), true);
            }
        }
    }

    #[test]
    fn limit_grows_to_its_maximum_while_connect_times_stay_the_same() {
        let mut controller = PermitController::new(MAX);
        record(&mut controller, 95, 30);
        assert_eq!(controller.limit(), MAX);
    }

    #[test]
    fn limit_doubles_until_the_first_median_that_makes_it_fall() {
        let mut controller = PermitController::new(MAX);
        record(&mut controller, 95, 1);
        assert_eq!(controller.limit(), 8, "the limit did not double at the first median");
        record(&mut controller, 160, 1);
        assert_eq!(controller.limit(), 7, "the limit did not fall although openings take two thirds longer");
        record(&mut controller, 95, 1);
        assert_eq!(controller.limit(), 8, "the limit still doubles after it fell");
    }

    #[test]
    fn limit_still_doubles_after_longer_medians_that_could_not_make_it_fall() {
        let mut controller = PermitController::new(MAX);
        for milliseconds in [95, 130] {
            (0..MIN_SAMPLES).for_each(|_| controller.record(Duration::from_millis(milliseconds), false));
        }
        assert_eq!(controller.limit(), MIN_PERMITS);
        record(&mut controller, 95, 1);
        assert_eq!(controller.limit(), 2 * MIN_PERMITS, "the limit does not double although it has never fallen");
    }

    /// Records fifty medians of a server whose openings take `n^exponent` times as long with `n` times the permits.
    fn adapt(exponent: f64) -> usize {
        let mut controller = PermitController::new(MAX);
        for _ in 0..50 {
            let longer = (controller.limit() as f64 / MIN_PERMITS as f64).powf(exponent);
            record(&mut controller, (95.0 * longer) as u64, 1);
        }
        controller.limit()
    }

    #[test]
    fn limit_grows_to_its_maximum_while_more_permits_open_more_connections() {
        assert_eq!(adapt(0.2), MAX);
    }

    #[test]
    fn limit_stays_small_when_more_permits_hardly_open_more_connections() {
        let limit = adapt(0.8);
        assert!(limit <= MIN_PERMITS + 2, "{limit} permits, although each of them makes the others slower");
    }

    #[test]
    fn limit_grows_by_one_after_a_failover() {
        let mut controller = PermitController::new(MAX);
        controller.reset();
        record(&mut controller, 95, 2);
        assert_eq!(controller.limit(), MIN_PERMITS + 2);
    }

    #[test]
    fn limit_stays_when_permits_are_free() {
        let mut controller = PermitController::new(MAX);
        (0..1_000).for_each(|_| controller.record(Duration::from_millis(95), false));
        assert_eq!(controller.limit(), MIN_PERMITS);
    }

    #[test]
    fn limit_is_halved_when_the_median_has_doubled() {
        let mut controller = PermitController::new(MAX);
        record(&mut controller, 95, 30);
        record(&mut controller, 190, 1);
        assert_eq!(controller.limit(), MAX / 2);
    }

    #[test]
    fn limit_returns_to_the_minimum_when_the_server_hardly_answers_and_grows_again_afterwards() {
        let mut controller = PermitController::new(MAX);
        record(&mut controller, 10, 30);
        record(&mut controller, 1_000, 1);
        assert_eq!(controller.limit(), MIN_PERMITS);
        record(&mut controller, 10, 30);
        assert_eq!(controller.limit(), MAX, "the limit did not recover");
    }

    #[test]
    fn limit_grows_again_when_the_server_became_slower_for_good() {
        let mut controller = PermitController::new(MAX);
        record(&mut controller, 5, 30);
        record(&mut controller, 60, 60);
        assert_eq!(controller.limit(), MAX, "the baseline does not follow a server that became slower");
    }

    #[test]
    fn limit_follows_a_smaller_maximum() {
        let mut controller = PermitController::new(MAX);
        record(&mut controller, 95, 30);
        controller.set_max(8);
        assert_eq!(controller.limit(), 8);
    }
}
