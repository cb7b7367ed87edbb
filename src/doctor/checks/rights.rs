//! Whether the rights on an active tenant's database are those that a provisioning grants.
use super::{Check, CheckFn};
use crate::doctor::action::Repair;
use crate::doctor::code::{Code, Severity};
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, TenantView};
use crate::tenant::TenantStatus;

pub(super) const CHECK: Check = Check { codes: &[Code::DatabaseRights], run: CheckFn::Tenant(run) };

/// The right of the application's role to create temporary tables is not compared: it may have been configured
/// otherwise when the tenant was created.
fn run(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    let (Some(server), Some(names), Some(database)) = (view.open_server(), &view.names, view.database()) else {
        return;
    };
    if !view.is(TenantStatus::Active) || !server.owns(database) {
        return;
    }
    let (owner, app) = (&names.roles.owner, &names.roles.app);
    if [owner, app].iter().any(|group| view.role(group).is_none_or(|found| !found.is_ours)) {
        return;
    }
    let connect = format!("{app}/CONNECT");
    let due = ["CONNECT", "CREATE", "TEMPORARY"].map(|right| format!("{owner}/{right}"));
    let has = |right: &String| database.grants.contains(right);
    let missing: Vec<_> = due.into_iter().chain([connect.clone()]).filter(|right| !has(right)).collect();
    // That PUBLIC may connect is a critical finding of its own.
    let create = format!("{app}/CREATE");
    let is_superfluous =
        |grant: &&String| grant.starts_with("PUBLIC/") && *grant != "PUBLIC/CONNECT" || **grant == create;
    let superfluous: Vec<_> = database.grants.iter().filter(is_superfluous).cloned().collect();
    if missing.is_empty() && superfluous.is_empty() {
        return;
    }
    // With CREATE the application can make schemas and everything in them.
    let severity = if missing.contains(&connect) || superfluous.contains(&create) {
        Severity::Critical
    } else {
        Code::DatabaseRights.severity()
    };
    let finding = view.draft(Code::DatabaseRights).object(database.name.as_str()).severity(severity);
    let finding = finding.seen("missing", missing).seen("superfluous", superfluous);
    findings.push(finding.repair(Repair::RestoreAccess));
}
