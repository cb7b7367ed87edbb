//! Sessions that are idle in a transaction while others wait for them (incident 6), on a server and in the landlord.
use super::{Check, CheckFn};
use crate::cluster::pg::observe::Blocker;
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::{Draft, Findings};
use crate::doctor::view::{Expected, LandlordView, ServerView};
use crate::operation::Subject;

pub(super) const CHECK: Check = Check {
    codes: &[Code::SessionBlocks, Code::CannotSee],
    run: CheckFn::Several(&[CheckFn::Landlord(run_landlord), CheckFn::Server(run_server)]),
};

/// The states of a session that holds its locks until its client sends something.
const IDLE: [&str; 2] = ["idle in transaction", "idle in transaction (aborted)"];

fn run_landlord(view: &LandlordView, expected: &Expected, findings: &mut Findings) {
    let draft = |code| Draft::new(code, Subject::Landlord);
    if let Some(reason) = view.blockers.hidden() {
        let finding = draft(Code::CannotSee).object("sessions").noted("reason", reason);
        findings.push(finding.no_repair("it was not seen which sessions of the landlord block others; examine again"));
    }
    check(view.blockers.read().map_or(&[], Vec::as_slice), expected, &draft, findings);
}

fn run_server(view: &ServerView, expected: &Expected, findings: &mut Findings) {
    check(&view.blockers, expected, &|code| view.draft(code), findings);
}

fn check(blockers: &[Blocker], expected: &Expected, draft: &dyn Fn(Code) -> Draft, findings: &mut Findings) {
    for blocker in blockers {
        let (Some(state), Some(started_at), Some(idle_seconds)) =
            (blocker.state.as_deref(), blocker.started_at, blocker.idle_seconds)
        else {
            report_hidden(blocker, draft(Code::CannotSee), findings);
            continue;
        };
        if !IDLE.contains(&state) || idle_seconds < expected.blocking_after.as_secs_f64() {
            continue;
        }
        let finding = describe(blocker, draft(Code::SessionBlocks)).seen("started_at", started_at.to_string());
        let transaction_at = blocker.transaction_at;
        let finding = finding.seen("transaction_at", transaction_at.map(|at| at.to_string()));
        let finding = finding.noted("idle_seconds", idle_seconds.round()).noted("state", state);
        findings.push(match blocker.can_signal {
            true => finding.repair(Repair::EndSession { pid: blocker.pid, started_at, transaction_at }),
            false => finding.no_repair(format!(
                "this role may not end it; run as a superuser: SELECT pg_terminate_backend({})",
                blocker.pid
            )),
        });
    }
}

/// Without the right to see the session's state it may be a session that is about to end.
fn report_hidden(blocker: &Blocker, draft: Draft, findings: &mut Findings) {
    findings.push(
        describe(blocker, draft).no_repair(
            "the session blocks others, and its state is hidden from this role; grant pg_read_all_stats to it",
        ),
    );
}

fn describe(blocker: &Blocker, draft: Draft) -> Draft {
    let draft = draft.object(format!("process {}", blocker.pid)).seen("pid", blocker.pid);
    let draft = draft.seen("user", &blocker.login).seen("application", &blocker.application);
    let draft = draft.seen("database", &blocker.database).noted("waiters", blocker.waiters);
    draft.noted("waiting_statements", &blocker.waiting_statements)
}
