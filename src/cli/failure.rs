//! [`CommandError`]: why a command failed, and what a person can type next.
//!
//! The modules of `explain` make it from the errors of the facade, whose texts name calls of the library. A person at a
//! terminal needs commands instead.
use super::exit::Exit;
use super::output::{NextStep, print_error, print_next_steps, print_object};
use crate::operation::OperationId;
use serde_json::json;
use std::io;

/// The reason why a command failed. It contains no secret.
#[derive(Debug)]
pub(super) struct CommandError {
    message: String,
    operation: Option<OperationId>,
    next_steps: Vec<NextStep>,
    exit: Exit,
}

impl CommandError {
    /// The command failed.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), operation: None, next_steps: vec![], exit: Exit::Failed }
    }
    /// The arguments or the configuration are wrong, and nothing was begun.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::failed(message) }
    }
    pub(super) fn operation(self, id: Option<OperationId>) -> Self {
        Self { operation: id, ..self }
    }
    pub(super) fn next(mut self, arguments: impl Into<String>) -> Self {
        self.next_steps.push(NextStep::Command(arguments.into()));
        self
    }
    pub(super) fn hint(mut self, text: impl Into<String>) -> Self {
        self.next_steps.push(NextStep::Hint(text.into()));
        self
    }
    pub(super) fn message(&self) -> &str {
        &self.message
    }
    /// For the error of one of several parts.
    pub(super) fn to_json(&self, program: &str) -> serde_json::Value {
        let next_steps: Vec<_> = self.next_steps.iter().map(|step| step.text(program)).collect();
        json!({ "message": self.message, "operation": self.operation, "next_steps": next_steps })
    }

    /// Prints the error to stderr, or as the JSON object of the command to stdout.
    pub(super) fn print(self, program: &str, as_json: bool) -> Exit {
        let _ = match as_json {
            true => {
                let next_steps: Vec<_> = self.next_steps.iter().map(|step| step.text(program)).collect();
                let error = json!({ "message": self.message, "operation": self.operation });
                print_object(&json!({ "error": error, "next_steps": next_steps }))
            }
            false => self.print_text(program),
        };
        self.exit
    }

    fn print_text(&self, program: &str) -> io::Result<()> {
        print_error(&self.message)?;
        print_next_steps(&self.next_steps, program)
    }
}
