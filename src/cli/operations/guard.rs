//! Keeps a program that is not the application from driving operations whose steps are the application's.
//!
//! The journal stores the number of completed steps, not their content. A program without the application's migrations,
//! steps and stores would leave them out and call the operation done.
use super::super::failure::CommandError;
use super::super::session::Session;
use crate::operation::OperationState;

/// Kinds of operations with parts of the application in them: migrations, steps, deliveries, the store of its users.
const OF_APPLICATION: [&str; 5] = ["provision", "follow_up", "migrate", "setup_credentials", "setup_password"];

/// Whether operations of this kind have steps or settings of the application in them.
pub(in crate::cli) fn needs_application(kind: &str) -> bool {
    OF_APPLICATION.contains(&kind)
}

/// Refuses to drive the operation unless the application's own program does it, or the caller takes the responsibility.
pub(super) fn verify_can_drive(
    session: &Session, operation: &OperationState, is_accepted: bool, command: &str,
) -> Result<(), CommandError> {
    if session.is_application || is_accepted || !needs_application(&operation.kind) {
        return Ok(());
    }
    let text = format!(
        "a {} has steps of the application, which this program may not have; a node of the application must drive it",
        operation.kind
    );
    Err(CommandError::usage(text)
        .operation(Some(operation.id))
        .hint("Run the application, or this command of the application's own program.")
        .hint(format!(
            "If this program has all of its migrations and it has no steps: add --here to `operations {command}`."
        )))
}
