//! Invalid indexes, and event triggers, which would run their function with the provisioner's rights.
use super::{Check, CheckFn};
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, TenantView};

pub(super) const CHECK: Check = Check { codes: &[Code::IndexInvalid, Code::EventTrigger], run: CheckFn::Tenant(run) };

fn run(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    let rows = |kind: &'static str| view.objects.read().into_iter().flatten().filter(move |row| row.kind == kind);
    for row in rows("index_invalid") {
        let index = &row.object;
        let finding = view.draft(Code::IndexInvalid).object(index.as_str()).seen("table", &row.role);
        findings.push(finding.no_repair(format!(
            "a concurrent build has failed, and every write still maintains the index; run as the owner of the table: \
             REINDEX INDEX CONCURRENTLY {index}, or drop it"
        )));
    }
    for row in rows("event_trigger") {
        let trigger = &row.object;
        let finding = view.draft(Code::EventTrigger).object(trigger.as_str()).seen("owner", &row.role);
        findings.push(finding.no_repair(disable(trigger)));
    }
    if view.has_database() && view.database().is_some_and(|database| database.has_login_trigger) {
        let finding = view.draft(Code::EventTrigger).object("login").seen("has_login_trigger", true);
        findings.push(finding.no_repair(disable("…")));
    }
}

fn disable(trigger: &str) -> String {
    format!(
        "its function runs with the rights of the role that acts in the database; if it is not meant, run there as a superuser: \
         ALTER EVENT TRIGGER \"{trigger}\" DISABLE"
    )
}
