//! How the examples show an error to the person who runs them.
use std::path::Path;
use tenantry::error::{ChangeError, StoreError};

#[allow(dead_code, reason = "the examples call `report`")]
#[path = "../../examples/example_server/exit.rs"]
mod exit;

#[test]
fn error_of_an_example_is_printed_with_each_cause_once() {
    let timeout = sqlx::Error::PoolTimedOut;
    let expected = format!("the landlord did not answer; try again\n  caused by: {timeout}");
    assert_eq!(exit::chain(&ChangeError::from(StoreError::from(timeout))), expected);
}

/// A `main` that returns a `Result` prints the error's `Debug` form.
#[test]
fn main_of_every_example_returns_an_exit_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for file in ["axum.rs", "actix.rs", "quickstart/main.rs", "torture/main.rs"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let main = text.lines().find(|line| line.contains("fn main()")).unwrap();
        assert!(main.contains("ExitCode {"), "{file}: {main}");
    }
}
