//! `migrate run`.
use crate::cli::arguments::{TenantName, apply, count};
use crate::cli::batch::Results;
use crate::cli::explain::explain_change;
use crate::cli::failure::CommandError;
use crate::cli::output::Output;
use crate::cli::session::Session;
use crate::error::{ChangeError, chain};
use crate::facade::{Batch, BatchReport, Call};
use crate::operations::migrate::{Migrate, Migrated};
use clap::Args;
use futures_util::{StreamExt, stream};
use serde_json::json;

#[derive(Args, Debug)]
pub(in crate::cli) struct RunArgs {
    /// Slugs, ids or domains
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    tenants: Vec<TenantName>,
    /// Every active tenant that is not at head
    #[arg(long)]
    pub(super) all: bool,
    /// Suspended tenants too. They stay suspended
    #[arg(long)]
    include_suspended: bool,
    /// Tenants that are migrated at once
    #[arg(long, default_value_t = 4)]
    concurrency: usize,
    /// Who wants this and why, for the history
    #[arg(long)]
    reason: Option<String>,
}

impl RunArgs {
    pub(super) async fn run_named(&self, session: &Session) -> Result<Output, CommandError> {
        session.catch_interrupts();
        let migrated = stream::iter(&self.tenants).map(|name| async move { (name, self.run_one(session, name).await) });
        let migrated: Vec<_> = migrated.buffer_unordered(self.concurrency.max(1)).collect().await;
        let mut results = Results::new();
        let mut lines = vec![];
        for (name, result) in migrated {
            match result {
                Ok(migrated) => {
                    lines.push(describe_migrated(&migrated));
                    results.done.push((name.to_string(), json!(migrated)));
                }
                Err(error) if self.tenants.len() == 1 => return Err(explain_change(error, name)),
                Err(error) => results.failed.push((name.to_string(), explain_change(error, name))),
            }
        }
        let is_anything_done = !results.done.is_empty();
        let output = lines.into_iter().fold(Output::new(), Output::line);
        Ok(results.add_to(output, session, is_anything_done))
    }

    async fn run_one(&self, session: &Session, name: &TenantName) -> Result<Migrated, ChangeError> {
        let call = session.tenantry.migrate(name.reference()).on_event(session.progress.observer(name.to_string()));
        let call = if self.include_suspended { call.include_suspended() } else { call };
        apply(call, self.reason.as_ref(), Call::reason).await
    }

    pub(super) async fn run_all(&self, session: &Session) -> Result<Output, CommandError> {
        session.catch_interrupts();
        session.progress.show("comparing the tenants' databases with the migrations");
        let report = self.batch(session).await?;
        let output = Output::new().line(describe_report(&report)).field("unchanged", report.unchanged);
        let output = output.field("ahead", report.ahead).field("suspended", report.suspended);
        let output = output.field("archived", report.archived);
        let is_anything_done = report.done.len() as u64 + report.unchanged > 0;
        Ok(Results::of(report, |migrated| json!(migrated)).add_to(output, session, is_anything_done))
    }

    fn batch(&self, session: &Session) -> Batch<Migrate> {
        let progress = session.progress.clone();
        let batch = session.tenantry.migrate_all().concurrency(self.concurrency);
        let batch = batch.on_result(move |tenant, result| match result {
            Ok(migrated) => progress.line(&describe_migrated(migrated)),
            Err(error) => progress.line(&format!("{} failed: {}", tenant.slug(), chain(error))),
        });
        let batch = if self.include_suspended { batch.include_suspended() } else { batch };
        apply(batch, self.reason.as_ref(), Batch::reason)
    }
}

fn describe_report(report: &BatchReport<Migrated>) -> String {
    let counts = [
        (report.done.len() as u64, "migrated"),
        (report.unchanged, "at head already"),
        (report.ahead, "left alone, because a newer program has migrated them"),
        (report.suspended, "suspended, left alone"),
        (report.archived, "archived, left alone"),
        (report.failed.len() as u64, "failed"),
    ];
    let counts = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect::<Vec<_>>();
    if counts.is_empty() { "No tenants.".into() } else { format!("Tenants: {}.", counts.join("; ")) }
}

fn describe_migrated(migrated: &Migrated) -> String {
    let slug = migrated.tenant.slug();
    match (migrated.applied.len(), migrated.to) {
        (0, Some(to)) => format!("{slug} is at head already, at version {to}."),
        (n, Some(to)) => format!("{slug} has run {} and is at version {to}.", count(n, "migration", "migrations")),
        (_, None) => format!("{slug} needed nothing."),
    }
}
