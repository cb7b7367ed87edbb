//! `operations show` and `operations watch`.
use super::{advise, name_subject};
use crate::cli::exit::Exit;
use crate::cli::failure::CommandError;
use crate::cli::output::{Output, Table, show_time};
use crate::cli::session::Session;
use crate::error::StoreError;
use crate::operation::{OperationEvent, OperationId, OperationState, OperationStatus};
use futures_util::{FutureExt, StreamExt};

pub(super) async fn show(session: &Session, id: OperationId) -> Result<Output, CommandError> {
    let operation = read(session, id).await?;
    let events = read_events(session, id).await?;
    let subject = name_subject(session, &operation.subject).await?;
    let facts = Table::facts()
        .fact("Operation", id.to_string())
        .fact("Kind", &operation.kind)
        .fact("Subject", subject)
        .fact("Status", operation.status.to_string())
        .fact("Step", format!("{}/{} {}", operation.done, operation.total, operation.step))
        .fact_if("Error", operation.error.clone())
        .fact_if("Next attempt", operation.retry_at.map(show_time))
        .fact_if("Reason", operation.reason.clone());
    let rows = events.iter().map(|event| {
        let text = event.reason.clone().or_else(|| event.error.clone()).unwrap_or_default();
        [
            show_time(event.at),
            format!("{}/{}", event.done, event.total),
            event.step.clone(),
            event.status.to_string(),
            text,
        ]
    });
    let output = Output::new()
        .table(facts)
        .heading("Events")
        .table(Table::new(["AT", "DONE", "STEP", "STATUS", "ERROR OR REASON"]).rows(rows).or_empty("None."))
        .field("operation", &operation)
        .field("events", &events);
    Ok(advise(output, &operation))
}

/// Shows the events as they come. The exit code says how the operation ended.
pub(super) async fn watch(session: &Session, id: OperationId) -> Result<Output, CommandError> {
    let operation = read(session, id).await?;
    let subject = name_subject(session, &operation.subject).await?;
    let mut events = session.tenantry.operations().events(id, 0);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => session.progress.line(&format!("{} {subject} {event}", show_time(event.at))),
            Err(StoreError::Corrupt(_)) => session.progress.line("an event cannot be read"),
            Err(error) => return Err(error.into()),
        }
    }
    let operation = read(session, id).await?;
    Ok(describe_state(&operation, &subject))
}

/// The result of a command that drove or followed an operation.
pub(super) fn describe_state(operation: &OperationState, subject: &str) -> Output {
    let (id, kind) = (operation.id, &operation.kind);
    let error = operation.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    let (text, exit) = match (operation.status, operation.retry_at) {
        (OperationStatus::Done, _) => (format!("The {kind} of {subject} is done."), Exit::Done),
        (OperationStatus::Undone, _) => (format!("The {kind} of {subject} is undone{error}"), Exit::Failed),
        (OperationStatus::Abandoned, _) => (format!("The {kind} of {subject} was abandoned."), Exit::Failed),
        (OperationStatus::Parked, _) => (format!("The {kind} of {subject} is parked{error}"), Exit::Failed),
        (status, Some(at)) => {
            (format!("The {kind} of {subject} is {status} and waits until {}{error}", show_time(at)), Exit::Failed)
        }
        (status, None) => (format!("The {kind} of {subject} is {status}{error}"), Exit::Failed),
    };
    let output = Output::new().line(text).field("operation", operation).exit(exit);
    advise(output, operation).next(format!("operations show {id}"))
}

pub(super) async fn read(session: &Session, id: OperationId) -> Result<OperationState, CommandError> {
    let found = session.tenantry.operations().get(id).await?;
    found.ok_or_else(|| CommandError::failed(format!("no operation {id} is in the journal")).next("operations list"))
}

/// The events that are stored now. The stream of an open operation does not end, so only what is there at once is read.
pub(super) async fn read_events(session: &Session, id: OperationId) -> Result<Vec<OperationEvent>, CommandError> {
    let (mut events, mut stream) = (vec![], session.tenantry.operations().events(id, 0));
    // The first item needs one read. The items of that read are then ready without waiting.
    let mut next = stream.next().await;
    while let Some(event) = next {
        match event {
            Ok(event) => events.push(event),
            Err(StoreError::Corrupt(_)) => {}
            Err(error) => return Err(error.into()),
        }
        next = stream.next().now_or_never().flatten();
    }
    Ok(events)
}
