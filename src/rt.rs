//! Polling helper for futures that yield to the scheduler too often.
//!
//! The pool, the cluster layer and the background loops wrap futures with it that may open a connection with sqlx.
//!
//! Invariant: it changes only how often the thread is given back, not the result of the future.
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// Maximum polls before the thread is given back. They cover an eighth of the key derivation of one login.
const POLLS_PER_TURN: usize = 100;

/// Polls a future that opens a connection up to 100 times before it gives the thread back to the scheduler.
///
/// For a SCRAM login, sqlx derives a key from the password in 4,096 rounds and yields after every five of them. After
/// each yield, all other ready tasks run first. In a task that drives 100 operations, or on a thread with as many busy
/// tasks, a derivation of two milliseconds then takes seconds, and leases expire in the meantime. With this function a
/// login yields about eight times. While the future waits for the server, the additional polls do nothing and cost no
/// system call.
pub(crate) async fn poll_batched<F: Future>(work: F) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|cx| {
        for _ in 0..POLLS_PER_TURN {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Waker};
    use tokio::task::yield_now;

    #[tokio::test]
    async fn poll_batched_turns_a_thousand_yields_into_ten() {
        let mut work = pin!(poll_batched(async {
            for _ in 0..1000 {
                yield_now().await;
            }
        }));
        let mut turns = 0;
        while work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            turns += 1;
        }
        assert_eq!(turns, 10);
    }
}
