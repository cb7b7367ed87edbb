//! Whether every role may connect to the maintenance database, where the provisioner works and takes its locks.
use super::{Check, CheckFn};
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, ServerView};

pub(super) const CHECK: Check = Check { codes: &[Code::MaintenancePublic], run: CheckFn::Server(run) };

fn run(view: &ServerView, _: &Expected, findings: &mut Findings) {
    if view.facts.as_ref().is_some_and(|facts| facts.is_maintenance_public) {
        let database = view.server.names.maintenance.as_str();
        let finding = view.draft(Code::MaintenancePublic).object(database).seen("public_may_connect", true);
        findings.push(finding.repair(Repair::CloseMaintenance));
    }
}
