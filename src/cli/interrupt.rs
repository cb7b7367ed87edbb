//! Ctrl-C and SIGTERM while an operation runs: the operation ends its step and stays in the journal.
use super::exit::Exit;
use super::failure::CommandError;
use super::operations::needs_application;
use super::output::print_status;
use super::session::Session;
use std::io;

/// Resolves when the person or the system interrupts a command that has begun to change something. Before that a signal
/// ends the process as usual.
pub(super) async fn wait(session: &Session) {
    session.begun.notified().await;
    if signal().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Stops the operations at the end of their steps and says how they continue. A second signal ends that at once.
pub(super) async fn leave(session: &Session) -> Exit {
    print_status("Interrupted. Waiting until the current step has ended; press Ctrl-C again to leave at once.");
    let is_stopped = tokio::select! {
        () = session.tenantry.close() => true,
        _ = signal() => false,
    };
    let error = describe(session, is_stopped).await;
    error.print(&session.program, session.as_json);
    Exit::Interrupted
}

async fn describe(session: &Session, is_stopped: bool) -> CommandError {
    let begun = session.progress.begun();
    if begun.is_empty() {
        let error = CommandError::failed("interrupted; an operation may have been begun");
        return error.next("operations list");
    }
    let mut open = vec![];
    for id in begun {
        match session.tenantry.operations().get(id).await {
            Ok(Some(operation)) if operation.status.is_over() => {}
            Ok(Some(operation)) => open.push((id, needs_application(&operation.kind) && !session.is_application)),
            Ok(None) | Err(_) => open.push((id, false)),
        }
    }
    if open.is_empty() {
        return CommandError::failed("interrupted; what was begun has ended");
    }
    let ids: Vec<_> = open.iter().map(|(id, _)| id.to_string()).collect();
    let when = if is_stopped { "" } else { " when its lease has expired, within 30 s" };
    let text = format!("interrupted; a node of the application continues operation {}{when}", ids.join(", "));
    open.iter().fold(CommandError::failed(text), |error, (id, is_guarded)| {
        let here = if *is_guarded { " --here" } else { "" };
        error.next(format!("operations show {id}")).next(format!("operations resume {id}{here}"))
    })
}

/// Resolves at the next Ctrl-C or SIGTERM.
async fn signal() -> io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
