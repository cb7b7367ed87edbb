//! `operations resume`, `undo`, `skip-step` and `abandon`.
use super::guard::verify_can_drive;
use super::watch::{describe_state, read, read_events};
use super::{name_subject, short_name};
use crate::cli::arguments::parse_id;
use crate::cli::confirm::confirm;
use crate::cli::failure::CommandError;
use crate::cli::output::Output;
use crate::cli::session::Session;
use crate::error::OperationError;
use crate::operation::{OperationId, OperationState, OperationStatus};
use clap::Args;
use futures_util::StreamExt;
use serde_json::json;
use std::future::Future;

#[derive(Args, Debug)]
pub(in crate::cli) struct ContinueArgs {
    /// Id of the operation
    #[arg(value_parser = parse_id::<OperationId>)]
    operation: OperationId,
    /// This program has the same migrations as the application, and the application has no steps of its own
    #[arg(long)]
    here: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct SkipArgs {
    #[command(flatten)]
    common: ContinueArgs,
    /// Name of the step, as `operations show` shows it
    step: String,
    /// Who wants this and why, for the history
    #[arg(long)]
    reason: String,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct AbandonArgs {
    /// Id of the operation
    #[arg(value_parser = parse_id::<OperationId>)]
    operation: OperationId,
    /// Who wants this and why, for the history
    #[arg(long)]
    reason: String,
}

pub(super) async fn resume(session: &Session, arguments: &ContinueArgs) -> Result<Output, CommandError> {
    let (id, operation) = (arguments.operation, read(session, arguments.operation).await?);
    verify_can_drive(session, &operation, arguments.here, "resume")?;
    session.catch_interrupts();
    let operations = session.tenantry.operations();
    if operation.status == OperationStatus::Parked {
        return drive(session, &operation, operations.resume(id)).await;
    }
    let subject = name_subject(session, &operation.subject).await?;
    match with_events(session, &subject, id, operations.take_over(id)).await? {
        Some(state) => Ok(describe_state(&state, &subject)),
        None => Err(CommandError::failed(format!(
            "operation {id} is {} and cannot be taken over now: a worker drives it, or it waits for its next attempt",
            operation.status
        ))
        .operation(Some(id))
        .next(format!("operations watch {id}"))),
    }
}

pub(super) async fn undo(session: &Session, arguments: &ContinueArgs) -> Result<Output, CommandError> {
    let operation = read(session, arguments.operation).await?;
    verify_can_drive(session, &operation, arguments.here, "undo")?;
    let subject = name_subject(session, &operation.subject).await?;
    let lost = [format!("everything that the {} of {subject} has made", operation.kind)];
    let question = format!("This undoes the operation {}, and removes:", operation.id);
    confirm(session, &question, &lost, &short_name(&operation.subject, &subject))?;
    drive(session, &operation, session.tenantry.operations().undo(operation.id)).await
}

pub(super) async fn skip_step(session: &Session, arguments: &SkipArgs) -> Result<Output, CommandError> {
    let operation = read(session, arguments.common.operation).await?;
    verify_can_drive(session, &operation, arguments.common.here, "skip-step")?;
    session.catch_interrupts();
    let operations = session.tenantry.operations();
    drive(session, &operation, operations.skip_step(operation.id, &arguments.step, &arguments.reason)).await
}

pub(super) async fn abandon(session: &Session, arguments: &AbandonArgs) -> Result<Output, CommandError> {
    let operation = read(session, arguments.operation).await?;
    let subject = name_subject(session, &operation.subject).await?;
    let lost = [
        format!("what the {} of {subject} has made so far stays, in whatever state it is", operation.kind),
        "nothing continues or undoes it afterwards".into(),
    ];
    let question = format!("This ends the operation {} without undoing it:", operation.id);
    confirm(session, &question, &lost, &short_name(&operation.subject, &subject))?;
    let left = session.tenantry.operations().abandon(operation.id, &arguments.reason).await?;
    let output = Output::new().line(format!("The {} of {subject} is abandoned.", operation.kind));
    let steps = left.steps.iter().map(|step| format!("the step {step} had begun"));
    let roles = left.roles.iter().map(|role| format!("the role {role} may exist"));
    let database = left.database.iter().map(|database| format!("the database {database} may exist"));
    let output = output.notes(steps.chain(database).chain(roles));
    let json = json!({
        "operation": left.operation, "steps": left.steps, "server": left.server, "database": left.database,
        "roles": left.roles,
    });
    Ok(output.field("abandoned", json).next("doctor"))
}

/// Drives the operation in this process, with its events as progress.
async fn drive(
    session: &Session, operation: &OperationState, driven: impl Future<Output = Result<OperationState, OperationError>>,
) -> Result<Output, CommandError> {
    let subject = name_subject(session, &operation.subject).await?;
    let state = with_events(session, &subject, operation.id, driven).await?;
    Ok(describe_state(&state, &subject))
}

/// Shows the new events of the operation while the future runs.
async fn with_events<T>(
    session: &Session, subject: &str, id: OperationId, driven: impl Future<Output = Result<T, OperationError>>,
) -> Result<T, CommandError> {
    let mut driven = std::pin::pin!(driven);
    let mut last = read_events(session, id).await?.last().map_or(0, |event| event.seq);
    // A parked operation is settled until the future has released it, so its stream of events ends at once.
    loop {
        let mut events = session.tenantry.operations().events(id, last);
        loop {
            tokio::select! {
                result = &mut driven => return Ok(result?),
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        last = event.seq;
                        session.progress.event(subject, &event);
                    }
                    Some(Err(_)) | None => break,
                },
            }
        }
        tokio::select! {
            result = &mut driven => return Ok(result?),
            () = tokio::time::sleep(EVENT_PAUSE) => {}
        }
    }
}

/// Pause before the events are read again.
const EVENT_PAUSE: std::time::Duration = std::time::Duration::from_millis(250);
