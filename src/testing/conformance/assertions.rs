//! Assertions on the results of a store or resolver. The conformance suites use them for every call.
//!
//! Each one panics if the result breaks the contract. The message has the form `expected: <rule>; got: <result>`, and
//! the panic points at the line of the suite that made the call.
#![expect(clippy::panic, reason = "a suite reports a broken contract as a panic, which fails the calling test")]
use crate::error::{NameConflict, StoreError, chain};

/// Returns the value of a call that must succeed. `rule` is a statement: "put() stores a secret".
#[track_caller]
pub(super) fn expect_ok<T, E: std::error::Error + 'static>(answer: Result<T, E>, rule: &str) -> T {
    match answer {
        Ok(value) => value,
        Err(error) => panic!("expected: {rule}; got the error: {}", chain(&error)),
    }
}

/// Returns a value that must be present. `rule` is a statement.
#[track_caller]
pub(super) fn expect_some<T>(found: Option<T>, rule: &str) -> T {
    match found {
        Some(value) => value,
        None => panic!("expected: {rule}; got: no such value"),
    }
}

/// The call must fail with `Fenced`. `call` is a noun phrase: "a write under an old epoch".
#[track_caller]
pub(super) fn expect_fenced(answer: Result<(), StoreError>, call: &str) {
    match answer {
        Err(StoreError::Fenced) => {}
        other => panic!("expected: {call} fails with Fenced; got: {other:?}"),
    }
}

/// The call must fail with `Conflict`. `call` is a noun phrase.
#[track_caller]
pub(super) fn expect_conflict(answer: Result<(), StoreError>, call: &str) {
    match answer {
        Err(StoreError::Conflict(_)) => {}
        other => panic!("expected: {call} fails with Conflict; got: {other:?}"),
    }
}

/// The call must fail with `Taken`, and the error must contain this conflict. `call` is a noun phrase.
#[track_caller]
pub(super) fn expect_taken(answer: Result<(), StoreError>, conflict: &NameConflict, call: &str) {
    match answer {
        Err(StoreError::Taken(found)) if found == *conflict => {}
        other => panic!("expected: {call} fails with Taken({conflict:?}); got: {other:?}"),
    }
}

/// Of concurrent calls exactly `winners` must succeed. Every other one must fail with an error for which `is_refusal`
/// is true.
#[track_caller]
pub(super) fn expect_winners(
    answers: Vec<Result<(), StoreError>>, winners: usize, is_refusal: impl Fn(&StoreError) -> bool, rule: &str,
) {
    let lost: Vec<_> = answers.iter().filter_map(|a| a.as_ref().err()).collect();
    let (all, won) = (answers.len(), answers.len() - lost.len());
    assert!(won == winners, "expected: {rule}, so {winners} of {all} calls succeed; got: {won}, with errors {lost:?}");
    assert!(lost.iter().all(|e| is_refusal(e)), "expected: {rule}, and the other calls fail for it; got: {lost:?}");
}
