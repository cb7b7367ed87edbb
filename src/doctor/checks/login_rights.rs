//! Rights that were granted to a login of the tenant itself, and not to its group role. The application's sessions can use
//! them after SET ROLE NONE, and the next login of the tenant does not have them.
use super::{Check, CheckFn};
use crate::cluster::pg::observe::ObservedRole;
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, ServerView, TenantView};
use crate::names::{RoleName, TenantNames};
use crate::sql::quote_identifier;
use std::collections::BTreeMap;

pub(super) const CHECK: Check = Check { codes: &[Code::LoginRights], run: CheckFn::Tenant(run) };

fn run(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    let (Some(server), Some(names), true) = (view.open_server(), &view.names, view.has_database()) else { return };
    for login in server.roles.values().filter(|role| is_login(view, role)) {
        check_own(view, server, names, login, findings);
        check_others(view, names, login, findings);
    }
}

/// Whether the role is a login of the tenant. One that is not this installation's is a finding of its own.
pub(super) fn is_login(view: &TenantView<'_>, role: &ObservedRole) -> bool {
    role.is_ours && view.is_login_name(&role.name)
}

/// The rights of a login by database. Databases cannot have a slash and a right in their names that this confuses,
/// because the last one separates.
fn by_database(login: &ObservedRole) -> BTreeMap<&str, Vec<&str>> {
    let mut rights = BTreeMap::<_, Vec<_>>::new();
    for (database, right) in login.database_rights.iter().filter_map(|right| right.rsplit_once('/')) {
        rights.entry(database).or_default().push(right);
    }
    rights
}

/// Rights on the tenant's database and on objects in it. Its owner is the admin role, and most objects belong to the
/// tenant's group roles, so the provisioner can revoke them.
fn check_own(
    view: &TenantView<'_>, server: &ServerView, names: &TenantNames, login: &ObservedRole, findings: &mut Findings,
) {
    let rights = by_database(login).remove(names.database.as_str()).unwrap_or_default();
    let granted = view.objects.read().into_iter().flatten();
    let granted = granted.filter(|row| row.kind == "object_granted" && row.role.as_deref() == Some(&login.name));
    let mut objects: Vec<_> = granted.map(|row| row.object.as_str()).collect();
    if rights.is_empty() && objects.is_empty() {
        return;
    }
    objects.sort_unstable();
    let finding = view.draft(Code::LoginRights).object(login.name.as_str());
    let finding = finding.seen("rights", &rights).seen("objects", objects);
    let is_owned = view.database().is_some_and(|database| server.owns(database));
    findings.push(match login.name.parse::<RoleName>() {
        // The owner of the database is a finding of its own.
        Ok(login) if is_owned && !rights.contains(&"OWNER") => finding.repair(Repair::RevokeRights { login }),
        _ => finding.no_repair("the admin role does not own the tenant's database, so it may not revoke the rights"),
    });
}

/// Rights on other databases. Another role has granted them, and may have meant them.
fn check_others(view: &TenantView<'_>, names: &TenantNames, login: &ObservedRole, findings: &mut Findings) {
    for (database, rights) in by_database(login).into_iter().filter(|(name, _)| *name != names.database.as_str()) {
        let finding = view.draft(Code::LoginRights).object(format!("{} on {database}", login.name));
        let (database, login) = (quote_identifier(&database), quote_identifier(&login.name));
        let advice = match rights.contains(&"OWNER") {
            true => format!("run as a superuser: ALTER DATABASE {database} OWNER TO another role"),
            false => format!("run as the owner of that database: REVOKE ALL ON DATABASE {database} FROM {login}"),
        };
        let finding = finding.seen("rights", rights);
        findings.push(finding.no_repair(format!("the database is not the tenant's; {advice}")));
    }
}
