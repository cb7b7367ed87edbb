//! `tenants suspend`, `activate`, `archive` and `restore`.
use crate::cli::arguments::{TenantName, apply, parse_duration};
use crate::cli::explain::explain_change;
use crate::cli::failure::CommandError;
use crate::cli::output::{Output, show_time};
use crate::cli::session::Session;
use crate::error::ChangeError;
use crate::facade::Call;
use crate::operations::lifecycle::{Archive, ShutOut};
use crate::operations::verb::CallVerb;
use crate::tenant::Tenant;
use clap::Args;
use std::time::Duration;

#[derive(Args, Debug)]
pub(in crate::cli) struct ReasonArgs {
    /// Slug, id or domain
    tenant: TenantName,
    /// Who wants this and why, for the history
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ArchiveArgs {
    #[command(flatten)]
    common: ReasonArgs,
    /// How long the data is kept, for example 90d. Default: 30d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    keep_for: Option<Duration>,
}

pub(super) async fn suspend(session: &Session, arguments: &ReasonArgs) -> Result<Output, CommandError> {
    let call = session.tenantry.suspend(arguments.tenant.reference());
    let closed = run(session, call, arguments).await?;
    let slug = closed.tenant().slug().clone();
    Ok(describe_closed(&closed, "suspended").next(format!("tenants activate {slug}")))
}

pub(super) async fn archive(session: &Session, arguments: &ArchiveArgs) -> Result<Output, CommandError> {
    let call = session.tenantry.archive(arguments.common.tenant.reference());
    let call = apply(call, arguments.keep_for, Call::<Archive>::keep_for);
    let closed = run(session, call, &arguments.common).await?;
    let slug = closed.tenant().slug().clone();
    let output = describe_closed(&closed, "archived");
    let output = match closed.tenant().kept_until() {
        Some(until) => output.line(format!("Its data is kept until {}.", show_time(until))),
        None => output,
    };
    Ok(output.next(format!("tenants restore {slug}")))
}

pub(super) async fn activate(session: &Session, arguments: &ReasonArgs) -> Result<Output, CommandError> {
    let call = session.tenantry.activate(arguments.tenant.reference());
    Ok(describe_open(&run(session, call, arguments).await?))
}

pub(super) async fn restore(session: &Session, arguments: &ReasonArgs) -> Result<Output, CommandError> {
    let call = session.tenantry.restore(arguments.tenant.reference());
    Ok(describe_open(&run(session, call, arguments).await?))
}

/// Makes the call with progress and the reason.
async fn run<V: CallVerb<Error = ChangeError>>(
    session: &Session, call: Call<V>, arguments: &ReasonArgs,
) -> Result<V::Answer, CommandError> {
    session.catch_interrupts();
    let call = call.on_event(session.progress.observer(arguments.tenant.to_string()));
    let call = apply(call, arguments.reason.as_ref(), Call::reason);
    call.await.map_err(|error| explain_change(error, &arguments.tenant))
}

fn describe_open(tenant: &Tenant) -> Output {
    let output = Output::new().line(format!("{} is {}.", tenant.slug(), tenant.status()));
    output.field("tenant", tenant).next(format!("tenants show {}", tenant.slug()))
}

fn describe_closed(closed: &ShutOut, what: &str) -> Output {
    let slug = closed.tenant().slug();
    let output = Output::new().field("tenant", closed.tenant()).field("complete", closed.is_complete());
    match closed {
        ShutOut::Complete { superusers, restored_comments, .. } => {
            let output =
                output.line(format!("{slug} is {what}: no role can enter its database, and no session is left."));
            let superusers = superusers.iter().map(|role| format!("the superuser {role} can still enter the database"));
            let restored = restored_comments.iter().map(|role| format!("the comment on the role {role} was restored"));
            output.notes(superusers).notes(restored)
        }
        ShutOut::Closing { operation, sessions, .. } => output
            .line(format!("{slug} is closed: no role can enter its database."))
            .note(format!(
                "{sessions} sessions were signalled and have not ended yet; a node of the application waits for them"
            ))
            .field("operation", operation)
            .field("sessions", sessions)
            .next(format!("operations watch {operation}")),
    }
}
