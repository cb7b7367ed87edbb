//! Doing the repairs of a plan, after a person has confirmed them.
use super::name;
use crate::cli::arguments::count;
use crate::cli::confirm::confirm;
use crate::cli::exit::Exit;
use crate::cli::failure::CommandError;
use crate::cli::operations::needs_application;
use crate::cli::output::{Output, Table};
use crate::cli::session::Session;
use crate::cli::status::table_of_findings;
use crate::doctor::{Doctor, Finding, Plan, Repair, RepairOutcome, Report};

pub(super) async fn run(session: &Session, doctor: &Doctor, plan: Plan, reason: &str) -> Result<Output, CommandError> {
    let (plan, left_out) = leave_out_application(session, plan);
    let repairs: Vec<_> = plan.repairs().map(describe_repair).collect();
    let output = Output::new().notes(left_out);
    if repairs.is_empty() {
        let is_clean = plan.is_clean();
        let output = output.line("There is nothing to repair.").field("plan", &plan);
        return Ok(match is_clean {
            true => output,
            false => output.table(table_of_findings(&plan.findings)).exit(Exit::Findings),
        });
    }
    let question = format!("{} will be done:", count(repairs.len(), "repair", "repairs"));
    confirm(session, &question, &repairs, "repair")?;
    session.progress.show("repairing");
    let report = doctor.apply(&plan, reason).await?;
    Ok(describe_report(output, &report))
}

/// Removes the repairs that would drive an operation with steps of the application, unless the application mounts the
/// commands. Returns a note for each.
fn leave_out_application(session: &Session, mut plan: Plan) -> (Plan, Vec<String>) {
    let mut notes = vec![];
    let is_of_application = |finding: &Finding| {
        let kind = finding.evidence.get("kind").and_then(|kind| kind.as_str());
        let drives = matches!(finding.repair, Some(Repair::ResumeOperation { .. } | Repair::RecoverOperation { .. }));
        drives && kind.is_none_or(needs_application)
    };
    if !session.is_application {
        plan.findings.retain(|finding| {
            let stays = !is_of_application(finding);
            if !stays {
                notes.push(format!(
                    "{}: left to a node of the application, whose steps the operation has",
                    name(finding)
                ));
            }
            stays
        });
    }
    (plan, notes)
}

fn describe_repair(finding: &Finding) -> String {
    let repair = finding.repair.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("{} → {repair}", name(finding))
}

fn describe_report(output: Output, report: &Report) -> Output {
    let rows = report.outcomes.iter().map(|(finding, outcome)| [name(finding), describe_outcome(outcome)]);
    let output = output.table(Table::new(["REPAIR", "OUTCOME"]).rows(rows)).field("report", report);
    let is_done = |outcome: &RepairOutcome| matches!(outcome, RepairOutcome::Repaired { .. } | RepairOutcome::Gone);
    match report.is_complete() {
        true => output.next("doctor"),
        false if report.outcomes.iter().any(|(_, outcome)| is_done(outcome)) => {
            output.exit(Exit::Partial).next("doctor")
        }
        false => output.exit(Exit::Failed).next("doctor"),
    }
}

fn describe_outcome(outcome: &RepairOutcome) -> String {
    match outcome {
        RepairOutcome::Repaired { operation } => format!("repaired by operation {operation}"),
        RepairOutcome::Gone => "not needed any more".into(),
        RepairOutcome::Changed => "not done: the subject has changed since the plan was made; make a new one".into(),
        RepairOutcome::StillFound { operation } => {
            format!("done by operation {operation}, and the finding is still there")
        }
        RepairOutcome::Busy { operation } => format!("not done: the operation {operation} is open"),
        RepairOutcome::Failed { operation: Some(operation), error } => {
            format!("failed in operation {operation}: {error}")
        }
        RepairOutcome::Failed { operation: None, error } => format!("not done: {error}"),
    }
}
