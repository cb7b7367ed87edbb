//! How an example ends: an error is printed for people, as its `Display` text with that of each cause.
//!
//! A `main` that returns a `Result` would print the `Debug` form, which shows the inside of the error types.
use std::error::Error;
use std::process::ExitCode;

/// Prints the error of a failed example to standard error and returns the exit code of the process.
#[allow(clippy::print_stderr, reason = "an example prints its errors")]
pub(crate) fn report(result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// The text of the error and of its causes. A cause whose text the error above it contains already is left out.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| (*cause).source()).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text.push_str("\n  caused by: ");
            text.push_str(&cause);
        }
    }
    text
}
