//! Whether a suspended or archived tenant can still be entered.
use super::{Check, CheckFn};
use crate::cluster::pg::ddl::CLEAN_UP_LIMIT;
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, TenantView};
use crate::tenant::TenantStatus;

pub(super) const CHECK: Check = Check { codes: &[Code::ClosedTenantOpen], run: CheckFn::Tenant(run) };

fn run(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    if !view.is(TenantStatus::Suspended) && !view.is(TenantStatus::Archived) {
        return;
    }
    let Some(database) = view.database() else { return };
    let (entrants, logins) = (entrants(view), logins(view));
    // A database that a dead worker has left open for a clean-up is a finding of its own, if no login can enter it.
    let is_left_open = database.connection_limit == CLEAN_UP_LIMIT;
    let is_open = view.is(TenantStatus::Archived) && database.is_open && !is_left_open;
    if entrants.is_empty() && logins.is_empty() && !is_open {
        return;
    }
    let finding = view.draft(Code::ClosedTenantOpen).object(database.name.as_str());
    let finding = finding.seen("is_open", database.is_open).seen("can_enter", entrants).seen("can_log_in", logins);
    findings.push(finding.repair(Repair::CloseAgain));
}

/// Roles that can enter the database and may not.
fn entrants(view: &TenantView<'_>) -> Vec<String> {
    let Some((server, names)) = view.open_server().zip(view.names.as_ref()) else { return vec![] };
    let found = server.entrants.get(names.database.as_str()).into_iter().flatten();
    found.filter(|role| !server.is_exempt(role)).cloned().collect()
}

/// The tenant's own logins that are not refused, whether or not the database is open.
fn logins(view: &TenantView<'_>) -> Vec<String> {
    let Some(server) = view.open_server() else { return vec![] };
    let own = server.roles.values().filter(|role| view.is_login_name(&role.name) && !server.is_exempt(&role.name));
    let mut logins: Vec<_> = own.filter(|role| role.can_login).map(|role| role.name.clone()).collect();
    logins.sort();
    logins
}
