//! Whether the application's second registry names the same database for a tenant (incident 5).
use super::{Check, CheckFn};
use crate::directory::TenantDatabase;
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, TenantView};

pub(super) const CHECK: Check = Check { codes: &[Code::SourcesDisagree], run: CheckFn::Tenant(run) };

fn run(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    let Some(second) = view.second.read() else { return };
    if !view.has_database() {
        return;
    }
    let database = |entry: Option<&TenantDatabase>| entry.map(|entry| entry.database.clone());
    let (first, second) = (database(view.primary()), database(second.as_ref()));
    if first != second {
        let finding = view.draft(Code::SourcesDisagree).seen("entry", first).seen("second_registry", second);
        findings.push(finding.no_repair(
            "only a person knows which of the two is right; correct the other one, and let every service read the directory \
             entries",
        ));
    }
}
