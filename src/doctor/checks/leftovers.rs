//! The migrator's login that an operation has left, and changed comments on a tenant's roles.
use super::{Check, CheckFn};
use crate::cluster::pg::ownership::MARK;
use crate::directory::UserStatus;
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, ServerView, TenantView};
use crate::names::{RoleName, TenantNames};

pub(super) const CHECK: Check = Check { codes: &[Code::MigratorLeft, Code::RoleMarker], run: CheckFn::Tenant(run) };

fn run(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    let (Some(server), Some(names), true) = (view.open_server(), &view.names, view.placement.is_some()) else {
        return;
    };
    check_migrator(view, server, names, findings);
    if view.has_database() {
        check_markers(view, server, names, findings);
    }
}

/// A parked operation drops its migrator when it continues.
fn check_migrator(view: &TenantView<'_>, server: &ServerView, names: &TenantNames, findings: &mut Findings) {
    let Some(role) = view.role(&names.migrator) else { return };
    if view.has_open_operation || server.temporary_logins.contains(&names.migrator) {
        return;
    }
    let finding = view.draft(Code::MigratorLeft).object(role.name.as_str()).seen("can_login", role.can_login);
    findings.push(match role.is_ours {
        true => finding.repair(Repair::DropMigrator),
        false => finding.no_repair("this installation did not create the role; a server admin can drop it"),
    });
}

/// The comments only help people to recognise a role; no decision depends on them. A role that is not ours is a finding
/// of its own.
fn check_markers(view: &TenantView<'_>, server: &ServerView, names: &TenantNames, findings: &mut Findings) {
    let marker = format!("{MARK}{} {}", server.installation, view.id);
    // A retiring login is dropped soon.
    let is_kept = |status| matches!(status, UserStatus::Pending | UserStatus::Active);
    let logins = view.users.iter().filter(|user| is_kept(user.status) && user.server == *server.name());
    let roles: Vec<&RoleName> =
        [&names.roles.owner, &names.roles.app].into_iter().chain(logins.map(|user| &user.role)).collect();
    for name in roles {
        let Some(role) = view.role(name).filter(|role| role.is_ours) else { continue };
        if role.comment.as_deref() != Some(marker.as_str()) {
            let finding = view.draft(Code::RoleMarker).object(name.as_str()).seen("comment", &role.comment);
            findings.push(finding.seen("expected", &marker).repair(Repair::RestoreComment { role: name.clone() }));
        }
    }
}
