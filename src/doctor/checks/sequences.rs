//! Sequences that have used most of their range. When the last value is used, every INSERT that needs the next one fails.
use super::{Check, CheckFn};
use crate::cluster::pg::observe::{MAX_SEQUENCES, ObservedSequence};
use crate::doctor::code::{Code, Severity};
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, LoginView, TenantView};

pub(super) const CHECK: Check = Check { codes: &[Code::SequenceExhausted, Code::CannotSee], run: CheckFn::Tenant(run) };

/// Part of the range from which a sequence is reported: early enough for a migration to a larger type.
const HIGH: f64 = 0.8;
/// Part of the range from which it is critical.
const CRITICAL: f64 = 0.95;

fn run(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    let Some(LoginView::Entered { sequences, .. }) = view.login.read() else { return };
    let Some(sequences) = sequences.read() else { return };
    for sequence in sequences {
        check(view, sequence, findings);
    }
    if sequences.len() >= MAX_SEQUENCES {
        let finding = view.draft(Code::CannotSee).object("more sequences").noted("codes", [Code::SequenceExhausted]);
        findings.push(finding.no_repair("the examination reads the first thousand sequences of a database"));
    }
    let hidden: Vec<_> = sequences.iter().filter(|sequence| sequence.is_hidden).map(|found| &found.sequence).collect();
    if !hidden.is_empty() {
        let finding = view.draft(Code::CannotSee).object("sequences").seen("sequences", hidden);
        findings.push(
            finding.noted("codes", [Code::SequenceExhausted]).no_repair(
                "the application's login may not read them; grant it USAGE or SELECT on them in a migration",
            ),
        );
    }
}

fn check(view: &TenantView<'_>, sequence: &ObservedSequence, findings: &mut Findings) {
    let Some(used) = sequence.used().filter(|used| *used >= HIGH) else { return };
    let severity = if used >= CRITICAL { Severity::Critical } else { Severity::Warning };
    let finding = view.draft(Code::SequenceExhausted).object(sequence.sequence.as_str()).severity(severity);
    let finding = finding.seen("smallest", sequence.smallest).seen("largest", sequence.largest);
    let percent = (used * 100.0).floor() as i64;
    findings.push(
        finding
            .noted("last_value", sequence.last_value)
            .noted("used_percent", percent)
            .no_repair("change the column and the sequence to bigint in a migration, before the last value is used"),
    );
}
