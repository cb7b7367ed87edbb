//! Scheduling helpers: for futures that yield to the scheduler too often, and for tasks that yield too seldom.
//!
//! The pool, the cluster layer and the background jobs wrap futures in [`poll_batched`] that may open a connection with
//! sqlx. The pool calls [`yield_after_many_calls`] before each query.
//!
//! Invariant: they change only how often the thread is given back, not the result of a future.
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use tokio::task::yield_now;

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

/// Cooperative yield before a query: a fast server never returns `Pending`, so a query loop would starve other tasks on
/// this thread. Tokio's coop budget does not prevent that, because it does not cover sqlx's reads.
///
/// A task yields if it made the last 16 calls on this thread. If another task made one of them, that task has had its
/// turn and no yield is needed.
pub(crate) async fn yield_after_many_calls() {
    if is_turn_over() {
        yield_now().await;
    }
}

/// Counts one call of the present task. True if it was the last of a row.
fn is_turn_over() -> bool {
    const IN_A_ROW: u32 = 16;
    type Caller = (Option<tokio::task::Id>, u32);
    thread_local! { static LAST: Cell<Caller> = const { Cell::new((None, 0)) } }
    let task = tokio::task::try_id();
    let (last, calls) = LAST.get();
    let calls = if last == task { calls + 1 } else { 1 };
    let is_over = calls >= IN_A_ROW;
    LAST.set((task, if is_over { 0 } else { calls }));
    is_over
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Waker};

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
