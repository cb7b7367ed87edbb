//! Futures that give their thread back too often.
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// Polls in a row: of a login they are an eighth of the key's derivation.
const IN_A_ROW: usize = 100;

/// What opens connections. To log in, sqlx derives a key from the password (SCRAM) and gives the thread back after every
/// five of its 4,096 rounds. Each time all that is ready comes first: in a task that drives a hundred operations, or on a
/// thread with as many busy tasks, that makes seconds of two milliseconds' work, and leases run out meanwhile. Polled in
/// a row it gives the thread back eight times. What waits for the server is polled in vain, which
/// costs no system call.
pub(crate) async fn poll_batched<F: Future>(work: F) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|cx| {
        for _ in 0..IN_A_ROW {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(done);
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
    async fn a_thousand_yields_are_ten() {
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
