//! Answers of a store, held against its contract.
#![expect(clippy::panic, reason = "a broken promise ends the test that asks for it")]
use crate::error::{NameConflict, StoreError, chain};

/// The value; `promise` is broken if there is none.
#[track_caller]
pub(super) fn done<T>(answer: Result<T, StoreError>, promise: &str) -> T {
    match answer {
        Ok(value) => value,
        Err(error) => panic!("promised: {promise}; seen: {}", chain(&error)),
    }
}

/// The same for errors of any kind.
#[track_caller]
pub(super) fn kept<T, E: std::error::Error + 'static>(answer: Result<T, E>, promise: &str) -> T {
    match answer {
        Ok(value) => value,
        Err(error) => panic!("promised: {promise}; seen: {}", chain(&error)),
    }
}

#[track_caller]
pub(super) fn some<T>(found: Option<T>, promise: &str) -> T {
    match found {
        Some(value) => value,
        None => panic!("promised: {promise}; seen: nothing"),
    }
}

#[track_caller]
pub(super) fn fenced(answer: Result<(), StoreError>, promise: &str) {
    match answer {
        Err(StoreError::Fenced) => {}
        other => panic!("promised: {promise} is Fenced; seen: {other:?}"),
    }
}

#[track_caller]
pub(super) fn conflict(answer: Result<(), StoreError>, promise: &str) {
    match answer {
        Err(StoreError::Conflict(_)) => {}
        other => panic!("promised: {promise} is a Conflict; seen: {other:?}"),
    }
}

#[track_caller]
pub(super) fn taken(answer: Result<(), StoreError>, what: &NameConflict, promise: &str) {
    match answer {
        Err(StoreError::Taken(found)) if found == *what => {}
        other => panic!("promised: {promise} is {what:?} taken; seen: {other:?}"),
    }
}

/// Of racing calls exactly `winners` succeed, and each other one is refused as `refused` says.
#[track_caller]
pub(super) fn race(
    answers: Vec<Result<(), StoreError>>, winners: usize, refused: impl Fn(&StoreError) -> bool, promise: &str,
) {
    let lost: Vec<_> = answers.iter().filter_map(|a| a.as_ref().err()).collect();
    let won = answers.len() - lost.len();
    assert!(won == winners, "promised: {promise}, {winners} of {} succeed; seen: {won}, and {lost:?}", answers.len());
    assert!(lost.iter().all(|e| refused(e)), "promised: {promise}, the others are told why; seen: {lost:?}");
}
