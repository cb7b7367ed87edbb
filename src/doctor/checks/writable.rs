//! Whether a server accepts writes, and whether connections to it are encrypted.
use super::{Check, CheckFn};
use crate::cluster::pg::observe::ServerFacts;
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, ServerView};
use crate::server::TlsMode;

pub(super) const CHECK: Check =
    Check { codes: &[Code::ServerReadOnly, Code::TlsOff, Code::CollationOutdated], run: CheckFn::Server(run) };

/// Databases that a finding names at most.
const NAMED: usize = 20;

fn run(view: &ServerView, _: &Expected, findings: &mut Findings) {
    let Some(facts) = &view.facts else { return };
    check_writable(view, facts, findings);
    check_tls(view, facts, findings);
    check_collations(view, findings);
}

fn check_writable(view: &ServerView, facts: &ServerFacts, findings: &mut Findings) {
    let advice = match (facts.is_in_recovery, facts.is_read_only) {
        (false, false) => return,
        (true, _) => "it is a standby; call servers().relocate() with the address of the primary, or promote it",
        (false, true) => {
            "default_transaction_read_only is on, as a managed service sets it when the disk is full; free disk space, then \
             turn it off"
        }
    };
    let finding = view.draft(Code::ServerReadOnly).seen("is_in_recovery", facts.is_in_recovery);
    findings.push(finding.seen("is_read_only", facts.is_read_only).no_repair(advice));
}

fn check_tls(view: &ServerView, facts: &ServerFacts, findings: &mut Findings) {
    let server = &view.server;
    let may_be_plain = matches!(server.tls, TlsMode::Disable | TlsMode::Prefer) || !facts.uses_tls;
    if TlsMode::is_on_this_machine(&server.host) || !may_be_plain {
        return;
    }
    let finding = view.draft(Code::TlsOff).seen("tls", server.tls).seen("is_encrypted", facts.uses_tls);
    findings.push(finding.seen("host", &server.host).no_repair(
        "passwords and data may cross the network in plain text; give the server a certificate, then set its TLS mode with \
         servers().set_up() and require_tls() of the builder",
    ));
}

fn check_collations(view: &ServerView, findings: &mut Findings) {
    let is_outdated = |versions: (&Option<String>, &Option<String>)| match versions {
        (Some(stored), Some(actual)) => stored != actual,
        _ => false,
    };
    let mut outdated: Vec<_> = view
        .databases
        .values()
        .filter(|database| view.owns(database))
        .filter(|database| is_outdated((&database.collation_version, &database.actual_collation_version)))
        .map(|database| database.name.as_str())
        .collect();
    if outdated.is_empty() {
        return;
    }
    outdated.sort_unstable();
    let count = outdated.len();
    outdated.truncate(NAMED);
    let finding = view.draft(Code::CollationOutdated).seen("count", count).noted("databases", outdated);
    findings.push(finding.no_repair(
        "the operating system sorts texts in another way than when the indexes were built; run REINDEX in each database as \
         its tables' owner, then as the database's owner: ALTER DATABASE … REFRESH COLLATION VERSION",
    ));
}
