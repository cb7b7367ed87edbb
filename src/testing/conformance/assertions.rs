//! Answers of a store, held against its contract.
#![expect(clippy::panic, reason = "a broken promise ends the test that asks for it")]
use crate::error::{NameConflict, StoreError, chain};

/// The value; `promise` is broken if there is none.
#[track_caller]
pub(super) fn done<T>(answer: Result<T, StoreError>, promise: &str) -> T {
    match answer {
        Ok(value) => value,
        Err(error) => panic!("expected: {promise}; got: {}", chain(&error)),
    }
}

/// The same for errors of any kind.
#[track_caller]
pub(super) fn kept<T, E: std::error::Error + 'static>(answer: Result<T, E>, promise: &str) -> T {
    match answer {
        Ok(value) => value,
        Err(error) => panic!("expected: {promise}; got: {}", chain(&error)),
    }
}

#[track_caller]
pub(super) fn some<T>(found: Option<T>, promise: &str) -> T {
    match found {
        Some(value) => value,
        None => panic!("expected: {promise}; got: nothing"),
    }
}

#[track_caller]
pub(super) fn expect_fenced(answer: Result<(), StoreError>, promise: &str) {
    match answer {
        Err(StoreError::Fenced) => {}
        other => panic!("expected: {promise} is Fenced; got: {other:?}"),
    }
}

#[track_caller]
pub(super) fn expect_conflict(answer: Result<(), StoreError>, promise: &str) {
    match answer {
        Err(StoreError::Conflict(_)) => {}
        other => panic!("expected: {promise} is a Conflict; got: {other:?}"),
    }
}

#[track_caller]
pub(super) fn expect_taken(answer: Result<(), StoreError>, what: &NameConflict, promise: &str) {
    match answer {
        Err(StoreError::Taken(found)) if found == *what => {}
        other => panic!("expected: {promise} is {what:?} taken; got: {other:?}"),
    }
}

/// Of racing calls exactly `winners` succeed, and each other one is refused as `refused` says.
#[track_caller]
pub(super) fn expect_winners(
    answers: Vec<Result<(), StoreError>>, winners: usize, refused: impl Fn(&StoreError) -> bool, promise: &str,
) {
    let lost: Vec<_> = answers.iter().filter_map(|a| a.as_ref().err()).collect();
    let won = answers.len() - lost.len();
    assert!(won == winners, "expected: {promise}, {winners} of {} succeed; got: {won}, and {lost:?}", answers.len());
    assert!(lost.iter().all(|e| refused(e)), "expected: {promise}, the others are told why; got: {lost:?}");
}
