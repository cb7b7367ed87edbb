//! Whether the migrations of this program have run in the tenant's database: at the end, in the middle, with the same
//! text, and to their end.
use super::{Check, CheckFn};
use crate::cluster::MigrationState;
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, LoginView, TenantView};

pub(super) const CHECK: Check = Check {
    codes: &[Code::MigrationsBehind, Code::MigrationsAhead, Code::MigrationsChanged, Code::MigrationsUnfinished],
    run: CheckFn::Tenant(run),
};

fn run(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    let Some(LoginView::Entered { migrations: Some(status), .. }) = view.login.read() else { return };
    if !matches!(status.state, MigrationState::Behind { .. }) && !status.missing.is_empty() {
        let finding = view.draft(Code::MigrationsBehind).seen("pending", &status.missing);
        findings.push(finding.seen("applied", status.applied).no_repair(
            "migrate() runs them only after the other finding about the migrations of this tenant is corrected",
        ));
    }
    let draft = |code| view.draft(code).seen("applied", status.applied).seen("newest", status.newest);
    findings.push(match &status.state {
        MigrationState::AtHead => return,
        MigrationState::Behind { pending } => {
            draft(Code::MigrationsBehind).seen("pending", pending).repair(Repair::Migrate)
        }
        MigrationState::Ahead { version } => draft(Code::MigrationsAhead)
            .seen("version", version)
            .no_repair("a newer program has run it; if none has, delete its row from the table of applied migrations"),
        MigrationState::Changed { version } => draft(Code::MigrationsChanged).seen("version", version).no_repair(
            "an applied migration must not be edited; restore its text, and make the change in a new migration",
        ),
        MigrationState::Unfinished { version } => draft(Code::MigrationsUnfinished).seen("version", version).no_repair(
            "check what it did; delete its row from the table of applied migrations so that it runs again, or set \
             success in that row so that it counts as run",
        ),
    });
}
