//! `operations`: the journal: what is open, what has happened, and what to do about an operation that is stuck.
use super::arguments::{TenantName, parse_id};
use super::failure::CommandError;
use super::output::{Output, Table};
use super::session::Session;
use crate::operation::{OperationId, OperationState, OperationStatus, Subject};
use crate::store::registry::TenantRegistry;
use clap::{Args, Subcommand};

mod continue_or_end;
mod guard;
mod watch;
pub(super) use guard::needs_application;

/// The operations: list, show, watch, continue, end
#[derive(Subcommand, Debug)]
pub(super) enum OperationsCommand {
    /// Lists the open operations
    List(ListArgs),
    /// Shows an operation and its events
    Show {
        /// Id of the operation
        #[arg(value_parser = parse_id::<OperationId>)]
        operation: OperationId,
    },
    /// Follows an operation until it ends, is parked or waits
    Watch {
        /// Id of the operation
        #[arg(value_parser = parse_id::<OperationId>)]
        operation: OperationId,
    },
    /// Continues a parked operation, or one whose worker has died, in this process
    Resume(continue_or_end::ContinueArgs),
    /// Undoes a parked operation, in this process
    Undo(continue_or_end::ContinueArgs),
    /// Continues an operation without one of its steps: follow-up work, or a step of the application
    SkipStep(continue_or_end::SkipArgs),
    /// Ends an operation without undoing it. The last resort
    Abandon(continue_or_end::AbandonArgs),
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// Only operations of this tenant
    #[arg(long, conflicts_with = "server")]
    tenant: Option<TenantName>,
    /// Only operations of this server
    #[arg(long, value_name = "NAME")]
    server: Option<crate::names::ServerName>,
    /// Also operations that have ended. Needs --tenant or --server
    #[arg(long)]
    all: bool,
}

impl OperationsCommand {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        match self {
            Self::List(arguments) => arguments.run(session).await,
            Self::Show { operation } => watch::show(session, *operation).await,
            Self::Watch { operation } => watch::watch(session, *operation).await,
            Self::Resume(arguments) => continue_or_end::resume(session, arguments).await,
            Self::Undo(arguments) => continue_or_end::undo(session, arguments).await,
            Self::SkipStep(arguments) => continue_or_end::skip_step(session, arguments).await,
            Self::Abandon(arguments) => continue_or_end::abandon(session, arguments).await,
        }
    }
}

impl ListArgs {
    async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        let operations = session.tenantry.operations();
        let rows = match self.subject(session).await? {
            Some(subject) => operations.history(&subject).await?,
            None if self.all => {
                return Err(CommandError::usage(
                    "--all needs --tenant or --server: the whole history can be very long",
                ));
            }
            None => operations.open().await?,
        };
        let shown: Vec<_> = rows.iter().filter(|operation| self.all || !operation.status.is_over()).cloned().collect();
        let output = Output::new().table(table_of_operations(session, &shown).await?).field("operations", &shown);
        let output = output.field("unreadable", &rows.unreadable);
        let output = output.notes(rows.unreadable.iter().map(ToString::to_string));
        Ok(match shown.last() {
            Some(operation) => output.next(format!("operations show {}", operation.id)),
            None => output,
        })
    }

    async fn subject(&self, session: &Session) -> Result<Option<Subject>, CommandError> {
        match (&self.tenant, &self.server) {
            (Some(tenant), _) => Ok(Some(Subject::Tenant(tenant.find(session).await?.id()))),
            (None, Some(server)) => Ok(Some(Subject::Server(server.clone()))),
            (None, None) => Ok(None),
        }
    }
}

/// The operations, also for `status` and `tenants show`.
pub(super) async fn table_of_operations(
    session: &Session, operations: &[OperationState],
) -> Result<Table, CommandError> {
    let mut table = Table::new(["OPERATION", "KIND", "SUBJECT", "STATUS", "DONE"]).or_empty("None.");
    for operation in operations {
        let subject = name_subject(session, &operation.subject).await?;
        let done = format!("{}/{}", operation.done, operation.total);
        let (id, status) = (operation.id.to_string(), operation.status.to_string());
        table = table.row([id, operation.kind.clone(), subject, status, done]);
    }
    Ok(table)
}

/// The name by which other commands take the subject: the slug of a tenant, if it has one.
async fn name_subject(session: &Session, subject: &Subject) -> Result<String, CommandError> {
    let Subject::Tenant(id) = subject else { return Ok(subject.to_string()) };
    let tenant = session.tenantry.registry().find((*id).into()).await?;
    Ok(tenant.map_or_else(|| id.to_string(), |tenant| tenant.slug().to_string()))
}

/// The name that a person types to confirm something about the subject: a tenant's slug, a server's name.
fn short_name(subject: &Subject, name: &str) -> String {
    match subject {
        Subject::Server(server) => server.to_string(),
        _ => name.to_owned(),
    }
}

/// Adds what a person can do about an operation in this state.
fn advise(output: Output, operation: &OperationState) -> Output {
    let id = operation.id;
    match operation.status {
        OperationStatus::Parked => output.next(format!("operations resume {id}")).next(format!("operations undo {id}")),
        OperationStatus::Running | OperationStatus::Undoing => output.next(format!("operations watch {id}")),
        OperationStatus::Done | OperationStatus::Undone | OperationStatus::Abandoned => output,
    }
}
