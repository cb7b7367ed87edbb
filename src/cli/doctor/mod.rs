//! `doctor`: examines the installation, and repairs what a plan selects. Without `--apply` or `--fix` it only reads.
use super::admin::AdminArgs;
use super::arguments::{TenantName, apply, count};
use super::exit::Exit;
use super::failure::CommandError;
use super::output::Output;
use super::session::Session;
use super::status::{describe_findings, table_of_findings};
use crate::doctor::{Doctor, Finding, Plan};
use crate::names::ServerName;
use clap::Args;
use std::path::{Path, PathBuf};

mod repair;

#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// Only this tenant: its slug, id or domain
    #[arg(long, conflicts_with = "server")]
    tenant: Option<TenantName>,
    /// Only this server and its tenants
    #[arg(long, value_name = "NAME")]
    server: Option<ServerName>,
    /// Does not log in as the tenants' applications: their migrations, sequences and passwords are not examined
    #[arg(long)]
    no_logins: bool,
    /// Writes the findings to this file, to be reviewed and given to --apply
    #[arg(long, value_name = "FILE", conflicts_with_all = ["apply", "fix"])]
    plan: Option<PathBuf>,
    /// Does the repairs of a reviewed file. Remove a finding from it whose repair you do not want
    #[arg(long, value_name = "FILE", conflicts_with = "fix")]
    apply: Option<PathBuf>,
    /// Examines, lists the repairs, asks, and does them
    #[arg(long)]
    fix: bool,
    /// A server whose admin's URL is given, so that its provisioner can be repaired
    #[arg(long, value_name = "SERVER")]
    admin: Option<ServerName>,
    #[command(flatten)]
    url: AdminArgs,
    /// Who wants the repairs and why, for the history
    #[arg(long, default_value = "tenantry doctor")]
    reason: String,
}

impl DoctorArgs {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        let doctor = self.doctor(session)?;
        let plan = match &self.apply {
            Some(path) => read_plan(path)?,
            None => {
                session.progress.show("examining the landlord, the servers and the tenants");
                doctor.examine().await?
            }
        };
        session.progress.clear();
        if self.apply.is_some() || self.fix {
            return repair::run(session, &doctor, plan, &self.reason).await;
        }
        if let Some(path) = &self.plan {
            write_plan(path, &plan)?;
        }
        Ok(self.describe(&plan))
    }

    fn doctor(&self, session: &Session) -> Result<Doctor, CommandError> {
        let progress = session.progress.clone();
        let doctor = session.tenantry.doctor().logins(!self.no_logins);
        let doctor = doctor.on_finding(move |finding| progress.show(&format!("found {}", name(finding))));
        let doctor = apply(doctor, self.tenant.as_ref(), |doctor, tenant| doctor.tenant(tenant.reference()));
        let doctor = apply(doctor, self.server.clone(), Doctor::server);
        match &self.admin {
            Some(server) => Ok(doctor.admin(server.clone(), self.url.require(session)?)),
            None => Ok(doctor),
        }
    }

    fn describe(&self, plan: &Plan) -> Output {
        let seen = format!(
            "Examined {} and {}.",
            count(plan.servers as usize, "server", "servers"),
            count(plan.tenants as usize, "tenant", "tenants")
        );
        let output = Output::new().line(seen).field("plan", plan);
        let output = match plan.busy {
            0 => output,
            n => output.note(format!(
                "{} could not be examined, because an operation changes them now",
                count(n as usize, "subject", "subjects")
            )),
        };
        if plan.is_clean() {
            return output.line("Nothing was found.");
        }
        let output = output.exit(Exit::Findings);
        if plan.findings.is_empty() {
            return output.next("doctor");
        }
        let output = output.line(describe_findings(&plan.findings) + ".").table(table_of_findings(&plan.findings));
        let output = match plan.omitted {
            0 => output,
            n => output.note(format!("{n} further findings are not shown")),
        };
        match (&self.plan, plan.repairs().next()) {
            (Some(path), _) => output.next(format!("doctor --apply {}", path.display())),
            (None, Some(_)) => output.next("doctor --plan plan.json").next("doctor --fix"),
            (None, None) => output,
        }
    }
}

fn read_plan(path: &Path) -> Result<Plan, CommandError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| CommandError::usage(format!("the file {} cannot be read: {error}", path.display())))?;
    Ok(Plan::from_json(&text)?)
}

fn write_plan(path: &Path, plan: &Plan) -> Result<(), CommandError> {
    std::fs::write(path, plan.to_json() + "\n")
        .map_err(|error| CommandError::failed(format!("the file {} cannot be written: {error}", path.display())))
}

/// `acme: login_missing t_1_v1`.
fn name(finding: &Finding) -> String {
    let subject = finding.tenant.as_ref().map_or_else(|| finding.subject.to_string(), ToString::to_string);
    let object = finding.object.as_ref().map(|object| format!(" {object}")).unwrap_or_default();
    format!("{subject}: {}{object}", finding.code)
}
