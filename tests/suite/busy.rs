//! Runs a future in one task with CPU-bound work. Tests use it to show that acquire timeouts and leases do not fail
//! because their task is polled late.
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::task::yield_now;

/// Polls `work` in one task with another future that spins for ten milliseconds between two polls. Returns the output
/// of `work`.
pub(crate) async fn beside_others<F: Future>(work: F) -> F::Output {
    let spin = async {
        loop {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(10) {
                std::hint::spin_loop();
            }
            yield_now().await;
        }
    };
    tokio::select! {
        biased;
        output = work => output,
        () = spin => unreachable!("the spinning future never completes"),
    }
}
