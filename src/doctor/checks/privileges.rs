//! Whether a role of a tenant has attributes by which it could leave its database or undo a suspension.
use super::{Check, CheckFn};
use crate::cluster::pg::observe::ObservedRole;
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, TenantView};

pub(super) const CHECK: Check = Check { codes: &[Code::RolePrivileged], run: CheckFn::Tenant(run) };

/// The attributes that the admin role has itself, so that it may take them from a role of its own.
const REMOVABLE: [&str; 2] = ["CREATEROLE", "CREATEDB"];

fn run(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    if !view.has_database() {
        return;
    }
    for role in roles(view).into_iter().filter(|role| !role.privileges.is_empty()) {
        let finding = view.draft(Code::RolePrivileged).object(role.name.as_str()).seen("has", &role.privileges);
        let is_removable = role.is_ours && role.privileges.iter().all(|has| REMOVABLE.contains(&has.as_str()));
        findings.push(match role.name.parse() {
            Ok(role) if is_removable => finding.repair(Repair::RemovePrivileges { role }),
            _ => finding.no_repair(alter_as_superuser(role)),
        });
    }
}

/// The roles of the tenant that exist, in the order of their names.
fn roles<'a>(view: &'a TenantView<'_>) -> Vec<&'a ObservedRole> {
    let Some((server, names)) = view.open_server().zip(view.names.as_ref()) else { return vec![] };
    let groups = [&names.roles.owner, &names.roles.app, &names.migrator];
    let is_own = |name: &str| groups.iter().any(|group| group.as_str() == name) || view.is_login_name(name);
    let mut roles: Vec<_> = server.roles.values().filter(|role| is_own(&role.name)).collect();
    roles.sort_by(|a, b| a.name.cmp(&b.name));
    roles
}

fn alter_as_superuser(role: &ObservedRole) -> String {
    let without: Vec<_> = role.privileges.iter().map(|has| format!("NO{has}")).collect();
    let (name, without) = (&role.name, without.join(" "));
    format!("the provisioner may not take these rights; run as a superuser: ALTER ROLE \"{name}\" {without}")
}
