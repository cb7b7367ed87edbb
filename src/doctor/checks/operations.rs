//! Open operations that do not end by themselves: parked, without a worker, or open for too long.
use super::{Check, CheckFn};
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::{Draft, Finding, Findings};
use crate::doctor::view::{Expected, LandlordView, TenantView};
use crate::operation::{Lane, OperationStatus, Subject};
use crate::store::journal::Record;
use crate::tenant::TenantStatus;
use std::time::Duration;
use time::OffsetDateTime;

pub(super) const CHECK: Check = Check {
    codes: &[Code::OperationParked, Code::OperationStalled, Code::OperationSlow],
    run: CheckFn::Several(&[CheckFn::Landlord(run), CheckFn::Tenant(run_tenant)]),
};

/// How long after the end of a lease, or after its retry time, an operation may wait for a node. Recovery looks every
/// five seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// An operation is never slow before this time, whatever the deadline is.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(3600);

fn run(view: &LandlordView, expected: &Expected, findings: &mut Findings) {
    for record in &view.operations {
        match record.status {
            OperationStatus::Parked if !is_change_of_tenant(record) => findings.push(report_parked(record)),
            OperationStatus::Running | OperationStatus::Undoing => check_open(view.now, record, expected, findings),
            _ => {}
        }
    }
}

/// Whether only the tenant's status tells if the operation should be parked.
fn is_change_of_tenant(record: &Record) -> bool {
    record.lane == Lane::Change && matches!(record.subject, Subject::Tenant(_))
}

/// A suspension and an archive park the change that was open; an activation or a restore continues it. A purge parks it
/// and ends it.
fn run_tenant(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    use TenantStatus::{Archived, Purging, Suspended};
    let is_closed = matches!(view.status(), Some(Suspended | Archived | Purging));
    if let Some(parked) = view.parked.as_ref().filter(|record| is_change_of_tenant(record) && !is_closed) {
        let tenant = view.tenant.as_ref().map(|tenant| tenant.slug().clone());
        findings.push(Finding { tenant, ..report_parked(parked) });
    }
}

fn report_parked(record: &Record) -> Finding {
    let finding = draft(Code::OperationParked, record).noted("error", &record.error);
    finding.repair(Repair::ResumeOperation { operation: record.id })
}

fn draft(code: Code, record: &Record) -> Draft {
    let draft = Draft::new(code, record.subject.clone()).object(record.id.to_string());
    let draft = draft.seen("kind", &record.kind).seen("step", &record.step).seen("epoch", record.epoch);
    draft.noted("begun_at", record.begun_at.to_string())
}

/// Whether the operation has failed and waits for its next attempt, a minute or more after its begin.
fn is_failing(now: OffsetDateTime, record: &Record) -> bool {
    record.retry_at.is_some() && record.error.is_some() && now - record.begun_at > PATIENCE
}

fn check_open(now: OffsetDateTime, record: &Record, expected: &Expected, findings: &mut Findings) {
    let is_waiting = record.retry_at.is_some_and(|at| at + PATIENCE > now);
    if !is_waiting && record.leased_until + PATIENCE < now {
        let finding = draft(Code::OperationStalled, record).noted("leased_until", record.leased_until.to_string());
        findings.push(match record.recoverable {
            true => finding.repair(Repair::RecoverOperation { operation: record.id }),
            false => finding.no_repair(
                "its caller had data that is not stored, so no other process can continue it; make the same call again, \
                 or end it with operations().abandon()",
            ),
        });
    } else if now - record.begun_at > expected.deadline.max(SHORTEST_DEADLINE) || is_failing(now, record) {
        let finding = draft(Code::OperationSlow, record).noted("error", &record.error);
        findings.push(finding.no_repair(
            "it is still tried; correct the cause that its error names, or end it with operations().abandon()",
        ));
    }
}
