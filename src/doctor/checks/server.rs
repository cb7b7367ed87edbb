//! Whether the provisioner can work on a server.
use super::{Check, CheckFn};
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, ServerAccess, ServerView};

pub(super) const CHECK: Check = Check {
    codes: &[
        Code::ServerUnreachable,
        Code::ServerUntrusted,
        Code::ServerNotReady,
        Code::ServerReplaced,
        Code::CannotSee,
    ],
    run: CheckFn::Server(run),
};

fn run(view: &ServerView, _: &Expected, findings: &mut Findings) {
    check_access(view, findings);
    if let Some(facts) = view.facts.as_ref().filter(|facts| !facts.can_see_sessions) {
        let finding = view.draft(Code::CannotSee).object("sessions").seen("version", facts.version / 10_000);
        let admin = &view.server.names.admin;
        findings.push(finding.noted("codes", [Code::SessionBlocks]).no_repair(format!(
            "the state of other sessions is hidden; run as a superuser: GRANT pg_read_all_stats TO \"{admin}\""
        )));
    }
}

fn check_access(view: &ServerView, findings: &mut Findings) {
    let name = view.name();
    let (code, reason, advice) = match &view.access {
        ServerAccess::Unreachable(reason) => (
            Code::ServerUnreachable,
            Some(reason),
            format!("make it reachable; if it has moved, call servers().relocate(\"{name}\", …)"),
        ),
        ServerAccess::Untrusted => (
            Code::ServerUntrusted,
            None,
            String::from(
                "nothing was connected to, because the address in the landlord is not authenticated or not allowed; \
                 find out who has changed the row, then correct the address with servers().set_up()",
            ),
        ),
        ServerAccess::NotReady => {
            (Code::ServerNotReady, None, String::from("call servers().set_up() again; it continues"))
        }
        ServerAccess::Replaced(reason) => (
            Code::ServerReplaced,
            Some(reason),
            String::from("nothing was read from it; correct the address with servers().relocate()"),
        ),
        ServerAccess::Open | ServerAccess::Refused(_) | ServerAccess::NoSecret(_) => return,
    };
    let finding = view.draft(code).seen("host", &view.server.host).seen("port", view.server.port);
    findings.push(match reason {
        Some(reason) => finding.noted("reason", reason).no_repair(advice),
        None => finding.no_repair(advice),
    });
}
