//! A simulated server in paused time: how close the adaptive limit comes to the best fixed one.
//!
//! Opening a connection waits (round trips) and works (on one of two processors). The rate of openings of callers that
//! always queue is compared with that of every fixed limit.
use super::{ConnectPermits, PermitLimit};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

const SLOTS: usize = 90;
const CALLERS: usize = 64;
/// Time in which the limit adapts, before anything is counted.
const WARM: Duration = Duration::from_secs(5);
const COUNTED: Duration = Duration::from_secs(15);

/// What opening one connection takes.
#[derive(Clone, Copy)]
struct Cost {
    waiting: Duration,
    working: Duration,
}

async fn open(processors: &Semaphore, cost: Cost) {
    sleep(cost.waiting / 2).await;
    // In slices, as an operating system divides a processor among tasks.
    for _ in 0..8 {
        let processor = processors.acquire().await;
        sleep(cost.working / 8).await;
        drop(processor);
    }
    sleep(cost.waiting / 2).await;
}

/// Connections per second that callers open who queue without a pause.
async fn measure_rate(limit: PermitLimit, cost: Cost) -> f64 {
    let permits = Arc::new(ConnectPermits::new(limit, SLOTS));
    let processors = Arc::new(Semaphore::new(2));
    let counts_from = Instant::now() + WARM;
    let until = counts_from + COUNTED;
    let callers = (0..CALLERS).map(|_| {
        let (permits, processors) = (permits.clone(), processors.clone());
        async move {
            let mut opened = 0;
            while Instant::now() < until {
                let permit = permits.clone().acquire().await;
                let began = Instant::now();
                open(&processors, cost).await;
                permits.record(began.elapsed());
                drop(permit);
                opened += u32::from(began >= counts_from);
            }
            opened
        }
    });
    let opened: u32 = futures_util::future::join_all(callers).await.into_iter().sum();
    f64::from(opened) / COUNTED.as_secs_f64()
}

#[tokio::test(start_paused = true)]
async fn adaptive_limit_opens_connections_as_fast_as_the_best_fixed_limit() {
    let milliseconds = |waiting, working| Cost {
        waiting: Duration::from_micros((waiting * 1e3) as u64),
        working: Duration::from_micros((working * 1e3) as u64),
    };
    for (name, cost) in [
        ("no TLS, loopback", milliseconds(1.0, 4.0)),
        ("TLS, loopback", milliseconds(1.0, 8.0)),
        ("TLS with delayed acknowledgements", milliseconds(86.0, 7.0)),
        ("another region", milliseconds(150.0, 4.0)),
    ] {
        let mut best: f64 = 0.0;
        for limit in [4, 8, 16, 30] {
            best = best.max(measure_rate(PermitLimit::Fixed(limit), cost).await);
        }
        let adaptive = measure_rate(PermitLimit::Adaptive, cost).await;
        assert!(
            adaptive >= 0.95 * best,
            "{name}: {adaptive:.0} connections per second, but {best:.0} with the best fixed limit"
        );
    }
}
