//! `credentials rotate`.
use crate::cli::arguments::{TenantName, apply, count, parse_duration};
use crate::cli::batch::Results;
use crate::cli::explain::explain_change;
use crate::cli::failure::CommandError;
use crate::cli::output::Output;
use crate::cli::session::Session;
use crate::error::{ChangeError, chain};
use crate::facade::{Batch, BatchReport, Call};
use crate::operations::rotate::{Rotate, Rotated};
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Args, Debug)]
pub(in crate::cli) struct RotateArgs {
    /// Slugs, ids or domains
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    tenants: Vec<TenantName>,
    /// Every active tenant
    #[arg(long)]
    pub(super) all: bool,
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

impl RotateArgs {
    /// One after the other, because an operator who names tenants expects their order.
    pub(super) async fn run_named(&self, session: &Session) -> Result<Output, CommandError> {
        session.catch_interrupts();
        let mut results = Results::new();
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
        let call = apply(call, self.grace, Call::<Rotate>::grace);
        apply(call, self.reason.as_ref(), Call::reason).await
    }

    pub(super) async fn run_all(&self, session: &Session) -> Result<Output, CommandError> {
        session.catch_interrupts();
        session.progress.show("rotating the tenants' logins");
        let report = self.batch(session).await?;
        let output = describe_report(&report).field("unchanged", report.unchanged);
        let is_anything_done = report.done.len() as u64 + report.unchanged > 0;
        Ok(Results::of(report, to_json).add_to(output, session, is_anything_done))
    }

    fn batch(&self, session: &Session) -> Batch<Rotate> {
        let progress = session.progress.clone();
        let batch = session.tenantry.rotate_all().on_result(move |tenant, result| match result {
            Ok(_) => progress.line(&format!("{} has a new login", tenant.slug())),
            Err(error) => progress.line(&format!("{} failed: {}", tenant.slug(), chain(error))),
        });
        let batch = apply(batch, self.older_than, Batch::<Rotate>::older_than);
        let batch = apply(batch, self.grace, Batch::<Rotate>::grace);
        apply(batch, self.reason.as_ref(), Batch::reason)
    }
}

fn describe_report(report: &BatchReport<Rotated>) -> Output {
    let (done, failed) = (report.done.len(), report.failed.len());
    let output = Output::new().line(format!("{done} rotated, {} not due, {failed} failed.", report.unchanged));
    match report.done.iter().filter(|(_, rotated)| rotated.retiring.is_some()).count() {
        0 => output,
        n => output
            .note(format!("{} could not be dropped yet", count(n, "old login", "old logins")))
            .next("credentials retiring"),
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
