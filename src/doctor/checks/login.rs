//! Whether an active tenant's login and its group roles exist, belong to this installation, and let the tenant in.
use super::{Check, CheckFn};
use crate::cluster::pg::observe::ObservedRole;
use crate::directory::{AppAccess, TenantDatabase};
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, LoginView, SecretView, ServerView, TenantView};
use crate::names::{RoleName, TenantNames};
use crate::sql::quote_identifier;
use crate::tenant::TenantStatus;

pub(super) const CHECK: Check = Check {
    codes: &[
        Code::RoleMissing,
        Code::RoleForeign,
        Code::LoginMissing,
        Code::LoginRefused,
        Code::LoginExpired,
        Code::LoginPassword,
        Code::LoginRejected,
        Code::LoginLimit,
    ],
    run: CheckFn::Tenant(run),
};

fn run(view: &TenantView<'_>, expected: &Expected, findings: &mut Findings) {
    let (Some(server), Some(names), true) = (view.open_server(), &view.names, view.database().is_some()) else {
        return;
    };
    if view.has_database() && view.placement.is_some() {
        check_groups(view, server, names, findings);
    }
    let Some(entry) = view.managed_entry().filter(|_| view.is(TenantStatus::Active)) else { return };
    match view.role(&entry.login) {
        None => check_missing_login(view, entry, findings),
        Some(login) if !login.is_ours => push_foreign(view, server, &entry.login, findings),
        Some(login) => {
            let acts_as = acting_as(view, expected, login).unwrap_or(AppAccess::App);
            check_entrance(view, entry, login, acts_as, findings);
            check_password(view, entry, login, findings);
            check_limit(view, entry, login, expected, findings);
        }
    }
}

fn check_groups(view: &TenantView<'_>, server: &ServerView, names: &TenantNames, findings: &mut Findings) {
    for group in [&names.roles.owner, &names.roles.app] {
        match view.role(group) {
            Some(found) if found.is_ours => {}
            Some(_) => push_foreign(view, server, group, findings),
            None => {
                let finding = view.draft(Code::RoleMissing).object(group.as_str()).seen("exists", false);
                findings.push(finding.no_repair(
                    "a new role of this name would not get the objects and rights back that the old one had; restore a \
                     backup of the server, or purge the tenant",
                ));
            }
        }
    }
}

fn push_foreign(view: &TenantView<'_>, server: &ServerView, role: &RoleName, findings: &mut Findings) {
    let admin = &server.server.names.admin;
    let finding = view.draft(Code::RoleForeign).object(role.as_str()).seen("is_ours", false);
    findings.push(finding.no_repair(format!(
        "the admin role has no ADMIN option on it; if it is the tenant's role, run as a superuser: \
         GRANT {} TO {} WITH ADMIN OPTION",
        quote_identifier(role),
        quote_identifier(admin)
    )));
}

fn check_missing_login(view: &TenantView<'_>, entry: &TenantDatabase, findings: &mut Findings) {
    let finding = view.draft(Code::LoginMissing).object(entry.login.as_str()).seen("exists", false);
    findings.push(match can_rotate(view) {
        true => finding.repair(Repair::Rotate),
        false => finding.no_repair("a new login needs the tenant's group roles, and one of them does not exist"),
    });
}

/// Whether a new login can be created: both group roles exist and belong to this installation.
pub(super) fn can_rotate(view: &TenantView<'_>) -> bool {
    let groups = view.names.as_ref().map(|names| [&names.roles.owner, &names.roles.app]);
    groups.is_some_and(|groups| groups.into_iter().all(|group| view.role(group).is_some_and(|found| found.is_ours)))
}

/// The group role as which the login should act: the configured one or, if this program does not know it, the one that
/// the login is a member of.
pub(super) fn acting_as(view: &TenantView<'_>, expected: &Expected, login: &ObservedRole) -> Option<AppAccess> {
    let names = view.names.as_ref()?;
    let is_member = |group: &RoleName| login.memberships.iter().any(|found| found.group == group.as_str());
    expected.access.or_else(|| match (is_member(&names.roles.app), is_member(&names.roles.owner)) {
        (true, _) => Some(AppAccess::App),
        (false, true) => Some(AppAccess::Owner),
        (false, false) => None,
    })
}

fn check_entrance(
    view: &TenantView<'_>, entry: &TenantDatabase, login: &ObservedRole, acts_as: AppAccess, findings: &mut Findings,
) {
    let repair = || Repair::RestoreLogin { login: entry.login.clone(), acts_as };
    if !login.can_login {
        let finding = view.draft(Code::LoginRefused).object(login.name.as_str()).seen("can_login", false);
        findings.push(finding.repair(repair()));
    }
    if login.is_expired {
        let finding = view.draft(Code::LoginExpired).object(login.name.as_str()).seen("is_expired", true);
        findings.push(finding.repair(repair()));
    }
}

/// The refusal has another cause if the login cannot log in at all, or has expired. Only 28P01 is about the password: with
/// any other code, such as 28000 for a line of pg_hba.conf, the next login would be refused too.
fn check_password(view: &TenantView<'_>, entry: &TenantDatabase, login: &ObservedRole, findings: &mut Findings) {
    let (Some(LoginView::Refused(code)), Some(SecretView::Opens)) = (view.login.read(), view.secret.read()) else {
        return;
    };
    if !login.can_login || login.is_expired {
        return;
    }
    let draft = |found| view.draft(found).object(entry.login.as_str()).seen("sqlstate", code);
    findings.push(match code.as_str() {
        WRONG_PASSWORD if can_rotate(view) => draft(Code::LoginPassword).repair(Repair::Rotate),
        WRONG_PASSWORD => draft(Code::LoginPassword)
            .no_repair("a new login needs the tenant's group roles, and one of them does not exist"),
        _ => draft(Code::LoginRejected).no_repair(
            "the login may log in and has not expired, so the server refuses this connection by pg_hba.conf, or by what that \
             demands, such as a certificate; correct pg_hba.conf for the tenants' logins and the addresses of the nodes",
        ),
    });
}

/// SQLSTATE of a wrong password.
const WRONG_PASSWORD: &str = "28P01";

fn check_limit(
    view: &TenantView<'_>, entry: &TenantDatabase, login: &ObservedRole, expected: &Expected, findings: &mut Findings,
) {
    if let Some(limit) = expected.connection_limit.filter(|limit| *limit != login.connection_limit) {
        let finding = view.draft(Code::LoginLimit).object(login.name.as_str());
        let finding = finding.seen("limit", login.connection_limit).seen("expected", limit);
        findings.push(finding.repair(Repair::LimitLogin { login: entry.login.clone(), limit }));
    }
}
