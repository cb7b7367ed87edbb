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
    let finding = finding.seen("is_open", database.is_open).seen("can_enter", &entrants).seen("can_log_in", &logins);
    findings.push(match find_obstacle(view, &entrants, &logins) {
        None => finding.repair(Repair::CloseAgain),
        Some(obstacle) => finding.no_repair(obstacle),
    });
}

/// Why closing again would not end: it refuses the recorded logins and PUBLIC, and stays open while another role can
/// enter. Until then no other operation of the tenant could begin.
fn find_obstacle(view: &TenantView<'_>, entrants: &[String], logins: &[String]) -> Option<String> {
    let is_recorded = |role: &str| view.users.iter().any(|user| user.role.as_str() == role);
    let others: Vec<_> = entrants.iter().chain(logins).filter(|role| *role != "PUBLIC" && !is_recorded(role)).collect();
    let role = others.first()?;
    Some(format!(
        "the role {role} is not a recorded login of the tenant; drop it, or revoke its CONNECT or its membership as a \
             superuser, then examine the tenant again"
    ))
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
