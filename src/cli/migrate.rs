//! `migrate`: compares the tenants' databases with the migrations of this program, and runs what is missing.
use super::arguments::{TenantName, count};
use super::batch::Results;
use super::exit::Exit;
use super::explain::explain_change;
use super::failure::CommandError;
use super::output::{Output, Table};
use super::session::Session;
use crate::error::{ChangeError, StoreError, chain};
use crate::operations::migrate::{Migrated, MigrationState, MigrationStatus};
use crate::store::registry::TenantRegistry;
use crate::tenant::{Tenant, TenantStatus};
use clap::{Args, Subcommand};
use futures_util::{StreamExt, stream};
use serde_json::json;

/// Migrations of the tenants' databases
#[derive(Subcommand, Debug)]
pub(super) enum MigrateCommand {
    /// Compares the databases with the migrations. Exit code 3 if one is not at head
    Status(StatusArgs),
    /// Runs the migrations that have not run yet
    Run(RunArgs),
}

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    /// Slugs, ids or domains. Default: all active tenants
    tenants: Vec<TenantName>,
}

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    /// Slugs, ids or domains
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    tenants: Vec<TenantName>,
    /// Every active tenant that is not at head
    #[arg(long)]
    all: bool,
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

impl MigrateCommand {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        if !session.has_migrations {
            return Err(explain_change(ChangeError::NoMigrations, &""));
        }
        match self {
            Self::Status(arguments) => arguments.run(session).await,
            Self::Run(arguments) if arguments.all => arguments.run_all(session).await,
            Self::Run(arguments) => arguments.run_named(session).await,
        }
    }
}

/// Databases whose status is read at once.
const READS: usize = 4;

impl StatusArgs {
    async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        let (tenants, unreadable) = self.tenants(session).await?;
        let statuses = stream::iter(tenants).map(|tenant| async move {
            let status = session.tenantry.migration_status(&tenant).await;
            (tenant, status)
        });
        let mut statuses: Vec<_> = statuses.buffer_unordered(READS).collect().await;
        statuses.sort_by(|(one, _), (other, _)| one.slug().as_str().cmp(other.slug().as_str()));
        let rows =
            statuses.iter().map(|(tenant, status)| [tenant.slug().to_string(), version(status), describe(status)]);
        let table = Table::new(["TENANT", "VERSION", "STATE"]).rows(rows).or_empty("No active tenants.");
        let json = statuses.iter().map(|(tenant, status)| match status {
            Ok(status) => json!({ "tenant": tenant.slug(), "status": status }),
            Err(error) => json!({ "tenant": tenant.slug(), "error": chain(error) }),
        });
        let output = Output::new().table(table).field("tenants", json.collect::<Vec<_>>());
        let output = output.field("unreadable", &unreadable).notes(unreadable.iter().cloned());
        let is_at_head = |status: &Result<MigrationStatus, _>| {
            status.as_ref().is_ok_and(|status| status.state == MigrationState::AtHead)
        };
        match statuses.iter().all(|(_, status)| is_at_head(status)) && unreadable.is_empty() {
            true => Ok(output),
            false => Ok(output.next("migrate run --all").exit(Exit::Findings)),
        }
    }

    async fn tenants(&self, session: &Session) -> Result<(Vec<Tenant>, Vec<String>), CommandError> {
        let (mut tenants, mut unreadable) = (vec![], vec![]);
        for name in &self.tenants {
            tenants.push(name.find(session).await?);
        }
        if self.tenants.is_empty() {
            let registry = session.tenantry.registry();
            let mut all = registry.all();
            while let Some(tenant) = all.next().await {
                match tenant {
                    Ok(tenant) if tenant.status() == TenantStatus::Active => tenants.push(tenant),
                    Ok(_) => {}
                    Err(error @ StoreError::Corrupt(_)) => unreadable.push(chain(&error)),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok((tenants, unreadable))
    }
}

fn version(status: &Result<MigrationStatus, ChangeError>) -> String {
    let applied = status.as_ref().ok().and_then(|status| status.applied);
    applied.map_or_else(|| "-".into(), |version| version.to_string())
}

fn describe(status: &Result<MigrationStatus, ChangeError>) -> String {
    match status {
        Ok(status) => status.state.to_string(),
        Err(error) => format!("cannot be seen: {}", chain(error)),
    }
}

impl RunArgs {
    async fn run_named(&self, session: &Session) -> Result<Output, CommandError> {
        session.catch_interrupts();
        let migrated = stream::iter(&self.tenants).map(|name| async move { (name, self.run_one(session, name).await) });
        let migrated: Vec<_> = migrated.buffer_unordered(self.concurrency.max(1)).collect().await;
        let mut results = Results { done: vec![], failed: vec![], unreadable: vec![] };
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
        match &self.reason {
            Some(reason) => call.reason(reason).await,
            None => call.await,
        }
    }

    async fn run_all(&self, session: &Session) -> Result<Output, CommandError> {
        session.catch_interrupts();
        let progress = session.progress.clone();
        let batch =
            session.tenantry.migrate_all().concurrency(self.concurrency).on_result(
                move |tenant, result| match result {
                    Ok(migrated) => progress.line(&describe_migrated(migrated)),
                    Err(error) => progress.line(&format!("{} failed: {}", tenant.slug(), chain(error))),
                },
            );
        let batch = if self.include_suspended { batch.include_suspended() } else { batch };
        let batch = match &self.reason {
            Some(reason) => batch.reason(reason),
            None => batch,
        };
        session.progress.show("comparing the tenants' databases with the migrations");
        let report = batch.await?;
        let counts = [
            (report.done.len() as u64, "migrated"),
            (report.unchanged, "at head already"),
            (report.ahead, "left alone, because a newer program has migrated them"),
            (report.suspended, "suspended, left alone"),
            (report.archived, "archived, left alone"),
            (report.failed.len() as u64, "failed"),
        ];
        let text = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect::<Vec<_>>();
        let text = if text.is_empty() { "No tenants.".into() } else { format!("Tenants: {}.", text.join("; ")) };
        let output = Output::new().line(text).field("unchanged", report.unchanged).field("ahead", report.ahead);
        let output = output.field("suspended", report.suspended).field("archived", report.archived);
        let is_anything_done = report.done.len() as u64 + report.unchanged > 0;
        let results = Results {
            done: report.done.iter().map(|(tenant, done)| (tenant.slug().to_string(), json!(done))).collect(),
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

fn describe_migrated(migrated: &Migrated) -> String {
    let slug = migrated.tenant.slug();
    match (migrated.applied.len(), migrated.to) {
        (0, Some(to)) => format!("{slug} is at head already, at version {to}."),
        (n, Some(to)) => format!("{slug} has run {} and is at version {to}.", count(n, "migration", "migrations")),
        (_, None) => format!("{slug} needed nothing."),
    }
}
