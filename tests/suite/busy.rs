//! A task that has more to do than what is measured.
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::task::yield_now;

/// Ten milliseconds of other work come before each turn of `work`, in its own task.
pub(crate) async fn beside_others<F: Future>(work: F) -> F::Output {
    let others = async {
        loop {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(10) {
                std::hint::spin_loop();
            }
            yield_now().await;
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        () = others => unreachable!("it goes on for ever"),
    }
}
