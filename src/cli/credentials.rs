//! `credentials`: new logins for tenants, another sealing key, and the logins that wait to be dropped.
use super::arguments::{TenantName, count, parse_duration};
use super::batch::Results;
use super::explain::explain_change;
use super::failure::CommandError;
use super::output::{Output, Table, show_time, to_text};
use super::session::Session;
use crate::error::{ChangeError, chain};
use crate::operations::rotate::Rotated;
use crate::store::registry::{Retirement, TenantRegistry};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::time::Duration;

/// Logins and keys: rotate, rekey, list what waits to be dropped
#[derive(Subcommand, Debug)]
pub(super) enum CredentialsCommand {
    /// Gives tenants a new login and drops the old one. No query fails
    Rotate(RotateArgs),
    /// Seals every stored secret with the first key of the key ring
    Rekey,
    /// Lists replaced logins that could not be dropped yet
    Retiring(RetiringArgs),
}

#[derive(Args, Debug)]
pub(super) struct RotateArgs {
    /// Slugs, ids or domains
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    tenants: Vec<TenantName>,
    /// Every active tenant
    #[arg(long)]
    all: bool,
    /// With --all: only logins that are at least this old, for example 90d
    #[arg(long, value_name = "AGE", value_parser = parse_duration, requires = "all")]
    older_than: Option<Duration>,
    /// How long sessions of the old login may continue. 0s ends them at once, for a password that has leaked. Default: 30s
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    grace: Option<Duration>,
    /// Who wants this and why, for the history
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct RetiringArgs {
    /// Most logins to show
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

impl CredentialsCommand {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        match self {
            Self::Rotate(arguments) if arguments.all => arguments.run_all(session).await,
            Self::Rotate(arguments) => arguments.run_named(session).await,
            Self::Rekey => rekey(session).await,
            Self::Retiring(arguments) => retiring(session, arguments.limit).await,
        }
    }
}

impl RotateArgs {
    /// One after the other, because an operator who names tenants expects their order.
    async fn run_named(&self, session: &Session) -> Result<Output, CommandError> {
        session.catch_interrupts();
        let mut results = Results { done: vec![], failed: vec![], unreadable: vec![] };
        let mut output = Output::new();
        for name in &self.tenants {
            match self.run_one(session, name).await {
                Ok(rotated) => {
                    output = describe(output, &rotated);
                    results.done.push((name.to_string(), to_json(&rotated)));
                }
                Err(error) if self.tenants.len() == 1 => return Err(explain_change(error, name)),
                Err(error) => results.failed.push((name.to_string(), explain_change(error, name))),
            }
        }
        let is_anything_done = !results.done.is_empty();
        Ok(results.add_to(output, session, is_anything_done))
    }

    async fn run_one(&self, session: &Session, name: &TenantName) -> Result<Rotated, ChangeError> {
        let call = session.tenantry.rotate(name.reference()).on_event(session.progress.observer(name.to_string()));
        let call = match self.grace {
            Some(grace) => call.grace(grace),
            None => call,
        };
        match &self.reason {
            Some(reason) => call.reason(reason).await,
            None => call.await,
        }
    }

    async fn run_all(&self, session: &Session) -> Result<Output, CommandError> {
        session.catch_interrupts();
        let progress = session.progress.clone();
        let batch = session.tenantry.rotate_all().on_result(move |tenant, result| match result {
            Ok(_) => progress.line(&format!("{} has a new login", tenant.slug())),
            Err(error) => progress.line(&format!("{} failed: {}", tenant.slug(), chain(error))),
        });
        let batch = match self.older_than {
            Some(age) => batch.older_than(age),
            None => batch,
        };
        let batch = match self.grace {
            Some(grace) => batch.grace(grace),
            None => batch,
        };
        let batch = match &self.reason {
            Some(reason) => batch.reason(reason),
            None => batch,
        };
        let report = batch.await?;
        let text =
            format!("{} rotated, {} not due, {} failed.", report.done.len(), report.unchanged, report.failed.len());
        let left: Vec<_> = report.done.iter().filter(|(_, rotated)| rotated.retiring.is_some()).collect();
        let output = Output::new().line(text).field("unchanged", report.unchanged);
        let output = match left.len() {
            0 => output,
            n => output
                .note(format!("{} could not be dropped yet", count(n, "old login", "old logins")))
                .next("credentials retiring"),
        };
        let is_anything_done = !report.done.is_empty() || report.unchanged > 0;
        let results = Results {
            done: report.done.iter().map(|(tenant, rotated)| (tenant.slug().to_string(), to_json(rotated))).collect(),
            failed: report
                .failed
                .into_iter()
                .map(|(t, error)| (t.slug().to_string(), explain_change(error, t.slug())))
                .collect(),
            unreadable: report.unreadable.iter().map(|error| chain(error)).collect(),
        };
        Ok(results.add_to(output, session, is_anything_done))
    }
}

fn describe(output: Output, rotated: &Rotated) -> Output {
    let output = output.line(format!("{} has login generation {}.", rotated.tenant.slug(), rotated.generation));
    match &rotated.retiring {
        Some(reason) => {
            output.note(format!("the old login could not be dropped yet: {reason}")).next("credentials retiring")
        }
        None => output,
    }
}

fn to_json(rotated: &Rotated) -> Value {
    json!({ "tenant": rotated.tenant, "generation": rotated.generation, "retiring": rotated.retiring })
}

async fn rekey(session: &Session) -> Result<Output, CommandError> {
    session.catch_interrupts();
    let rekeyed = session.tenantry.rekey().on_event(session.progress.observer("vault")).await;
    let rekeyed = rekeyed.map_err(|error| explain_change(error, &"vault"))?;
    let keys: Vec<_> = rekeyed.keys.iter().map(ToString::to_string).collect();
    let output = Output::new().line(format!("Keys in use: {}.", keys.join(", "))).field("keys", &keys);
    Ok(match keys.len() {
        0 | 1 => output.hint("Backups of the landlord that are older than this still need the old key."),
        _ => output.note(
            "a node with another first key has stored a secret meanwhile; give all nodes the same keys, then repeat",
        ),
    })
}

async fn retiring(session: &Session, limit: u32) -> Result<Output, CommandError> {
    let rows = session.tenantry.retiring(limit).await?;
    let mut table = Table::new(["TENANT", "LOGIN", "SERVER", "ATTEMPTS", "NEXT", "REASON"])
        .or_empty("No login waits to be dropped.");
    for retirement in rows.iter() {
        let tenant = session.tenantry.registry().find(retirement.user.tenant.into()).await?;
        let tenant = tenant.map_or_else(|| retirement.user.tenant.to_string(), |tenant| tenant.slug().to_string());
        let next = retirement.retry_at.map_or_else(|| "by its operation".into(), show_time);
        let (user, attempts) = (&retirement.user, retirement.attempts.to_string());
        let reason = user.reason.clone().unwrap_or_default();
        table = table.row([tenant, user.role.to_string(), user.server.to_string(), attempts, next, reason]);
    }
    let output = Output::new().table(table).notes(rows.unreadable.iter().map(ToString::to_string));
    let output = output.field("retiring", rows.iter().map(retirement_to_json).collect::<Vec<_>>());
    Ok(if rows.is_empty() {
        output
    } else {
        output.hint("A node that runs the application drops them; it retries at least once an hour.")
    })
}

fn retirement_to_json(retirement: &Retirement) -> Value {
    json!({
        "user": retirement.user, "attempts": retirement.attempts,
        "retry_at": retirement.retry_at.map(to_text), "operation": retirement.by,
    })
}
