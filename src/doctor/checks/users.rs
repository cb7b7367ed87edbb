//! Whether the recorded logins of a tenant are the ones on its server (incident 2), and whether the entry's login is the
//! one that is recorded as active.
use super::{Check, CheckFn};
use crate::cluster::pg::observe::ObservedRole;
use crate::directory::{DatabaseUser, TenantDatabase, UserStatus};
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, ServerView, TenantView};
use crate::names::{RoleName, TenantNames};
use crate::store::registry::Placement;

pub(super) const CHECK: Check = Check {
    codes: &[Code::UsersDisagree, Code::LoginNotDropped, Code::LoginUnrecorded, Code::LoginGone],
    run: CheckFn::Tenant(run),
};

const FOREIGN: &str = "this installation did not create the role, so it is never touched; a server admin can drop it";

fn run(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    let (Some(server), Some(placement), Some(names)) = (view.open_server(), &view.placement, &view.names) else {
        return;
    };
    let users: Vec<_> = view.users.iter().filter(|user| is_placed(user, placement)).collect();
    if let Some(entry) = view.managed_entry() {
        check_entry(view, &users, entry, findings);
    }
    for user in &users {
        check_user(view, user, findings);
    }
    check_unrecorded(view, server, names, &users, findings);
}

/// Whether the login is one of the database in which the tenant is placed.
fn is_placed(user: &DatabaseUser, placement: &Placement) -> bool {
    user.server == placement.server && user.database == placement.database
}

/// Whether a directory entry names this login. Such a login is in use, whatever is recorded about it.
fn is_in_use(view: &TenantView<'_>, login: &str) -> bool {
    view.entries.iter().any(|entry| entry.login.as_str() == login)
}

fn check_entry(view: &TenantView<'_>, users: &[&DatabaseUser], entry: &TenantDatabase, findings: &mut Findings) {
    let recorded = users.iter().find(|user| user.role == entry.login).map(|user| user.status);
    // A login that does not exist is a finding of its own, and its repair records another one.
    if recorded == Some(UserStatus::Active) || view.role(&entry.login).is_none() {
        return;
    }
    let active = users.iter().find(|user| user.status == UserStatus::Active).map(|user| &user.role);
    let finding = view.draft(Code::UsersDisagree).object(entry.login.as_str()).seen("recorded", recorded);
    findings.push(finding.seen("active", active).repair(Repair::SyncLogins));
}

fn check_user(view: &TenantView<'_>, user: &DatabaseUser, findings: &mut Findings) {
    let draft = |code| view.draft(code).object(user.role.as_str()).seen("recorded", user.status);
    let (login, before) = (user.role.clone(), user.status);
    match (user.status, view.role(&user.role)) {
        (UserStatus::Dropped, Some(role)) if !is_in_use(view, &role.name) => {
            let finding = draft(Code::LoginNotDropped).seen("can_login", role.can_login);
            let finding = finding.noted("sessions", role.sessions);
            let retire = Repair::RetireLogin { login, before: Some(before) };
            findings.push(if role.is_ours { finding.repair(retire) } else { finding.no_repair(FOREIGN) });
        }
        // The operation that is parked creates the login, or drops it, when it continues.
        (UserStatus::Pending | UserStatus::Retiring, None)
            if !view.has_open_operation && !is_in_use(view, user.role.as_str()) =>
        {
            findings.push(draft(Code::LoginGone).repair(Repair::ForgetLogin { login, before }));
        }
        _ => {}
    }
}

/// Logins on the server that have the name of one of this tenant's logins and no row in the landlord.
fn check_unrecorded(
    view: &TenantView<'_>, server: &ServerView, names: &TenantNames, users: &[&DatabaseUser], findings: &mut Findings,
) {
    let prefix = format!("{}_", names.database);
    let named = server.roles.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix));
    let is_recorded = |role: &ObservedRole| users.iter().any(|user| user.role.as_str() == role.name);
    let unrecorded = named.map(|(_, role)| role).filter(|role| names.generation_of(&role.name).is_some());
    for role in unrecorded.filter(|role| !is_recorded(role) && !is_in_use(view, &role.name)) {
        let finding = view.draft(Code::LoginUnrecorded).object(role.name.as_str()).seen("can_login", role.can_login);
        let finding = finding.noted("sessions", role.sessions);
        findings.push(match role.name.parse::<RoleName>() {
            Ok(login) if role.is_ours => finding.repair(Repair::RetireLogin { login, before: None }),
            _ => finding.no_repair(FOREIGN),
        });
    }
}
