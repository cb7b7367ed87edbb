//! Whether the provisioner's two logins can log in and act as the admin role.
use super::{Check, CheckFn};
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::{Draft, Finding, Findings};
use crate::doctor::view::{Expected, ServerAccess, ServerView};

pub(super) const CHECK: Check =
    Check { codes: &[Code::ProvisionerRefused, Code::IdleProvisionerRefused], run: CheckFn::Server(run) };

fn run(view: &ServerView, _: &Expected, findings: &mut Findings) {
    let login = &view.server.login;
    match &view.access {
        ServerAccess::Refused(reason) => {
            let finding = view.draft(Code::ProvisionerRefused).object(login.as_str()).seen("cause", "refused");
            findings.push(propose(finding.noted("reason", reason), view));
        }
        ServerAccess::NoSecret(reason) => {
            let finding = view.draft(Code::ProvisionerRefused).object(login.as_str()).seen("cause", "no secret");
            findings.push(propose(finding.noted("reason", reason), view));
        }
        _ => {}
    }
    if let Some(reason) = view.idle_login.hidden() {
        let idle = view.server.idle_login();
        let finding = view.draft(Code::IdleProvisionerRefused).object(idle.as_str()).seen("can_work", false);
        findings.push(propose(finding.noted("reason", reason), view));
    }
}

/// Only an admin's session can repair a login of the provisioner, because the admin role may not.
fn propose(finding: Draft, view: &ServerView) -> Finding {
    match view.has_admin {
        true => finding.repair(Repair::SetUpServer),
        false => {
            finding.no_repair("only a server admin can repair it; give the doctor an admin's connection with admin()")
        }
    }
}
