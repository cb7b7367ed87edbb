//! Whether an active tenant's login acts as its group role, and has no other memberships and settings; and whether the
//! tenant's other logins, which may still have sessions, have further memberships.
use super::entrants::revoke_as_superuser;
use super::login::acting_as;
use super::{Check, CheckFn};
use crate::cluster::pg::ddl;
use crate::cluster::pg::observe::ObservedRole;
use crate::directory::UserStatus;
use crate::doctor::action::Repair;
use crate::doctor::code::{Code, Severity};
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, LoginView, TenantView};
use crate::names::RoleName;
use crate::tenant::TenantStatus;

pub(super) const CHECK: Check = Check {
    codes: &[Code::LoginMembership, Code::LoginExtraMembership, Code::LoginSettings],
    run: CheckFn::Tenant(run),
};

fn run(view: &TenantView<'_>, expected: &Expected, findings: &mut Findings) {
    check_groups(view, findings);
    check_replaced(view, findings);
    let Some(entry) = view.managed_entry().filter(|_| view.is(TenantStatus::Active)) else { return };
    let (Some(names), Some(login)) = (&view.names, view.role(&entry.login).filter(|login| login.is_ours)) else {
        return;
    };
    let Some(access) = acting_as(view, expected, login) else {
        let finding = view.draft(Code::LoginMembership).object(login.name.as_str());
        let finding = finding.seen("memberships", &login.memberships);
        return findings.push(finding.no_repair(
            "the login is a member of neither group role, and this program does not know which one the application \
             uses; rotate the tenant's login",
        ));
    };
    let group = ddl::acts_as(&names.roles, access);
    if view.role(group).is_none() {
        return;
    }
    let login_name = || entry.login.clone();
    if !acts_as(view, login, group) {
        let finding = view.draft(Code::LoginMembership).object(login.name.as_str()).seen("group", group);
        let finding = finding.seen("memberships", &login.memberships).seen("role_setting", role_setting(login));
        findings.push(finding.repair(Repair::RestoreLogin { login: login_name(), acts_as: access }));
    }
    check_extra(view, login, group, findings);
    let others: Vec<_> = login.settings.iter().filter(|setting| !setting.starts_with("role=")).collect();
    if !others.is_empty() {
        let finding = view.draft(Code::LoginSettings).object(login.name.as_str()).seen("settings", others);
        findings.push(finding.repair(Repair::RestoreLogin { login: login_name(), acts_as: access }));
    }
}

/// Whether the sessions of the login act as the group role.
fn acts_as(view: &TenantView<'_>, login: &ObservedRole, group: &RoleName) -> bool {
    let group = group.as_str();
    let is_member = login.memberships.iter().any(|found| found.group == group && found.inherit && found.set);
    let has_acted = match view.login.read() {
        Some(LoginView::Entered { acts_as, .. }) => acts_as == group,
        _ => true,
    };
    is_member && role_setting(login) == Some(group) && has_acted
}

fn role_setting(login: &ObservedRole) -> Option<&str> {
    let setting = login.settings.iter().find_map(|setting| setting.strip_prefix("role="))?;
    // PostgreSQL stores the name with quotes if the statement has set it as an identifier that needs them.
    Some(setting.trim_matches('"'))
}

/// The tenant's group roles are members of no other role: what that role may do, the application could do.
fn check_groups(view: &TenantView<'_>, findings: &mut Findings) {
    let Some(names) = view.names.as_ref().filter(|_| view.has_database()) else { return };
    for name in [&names.roles.owner, &names.roles.app] {
        for extra in view.role(name).into_iter().flat_map(|role| &role.memberships) {
            let finding = view.draft(Code::LoginExtraMembership).object(format!("{name} in {}", extra.group));
            let finding = finding.severity(Severity::Critical).seen("grantor", &extra.grantor);
            findings.push(finding.no_repair(revoke_as_superuser(
                &extra.group,
                name.as_str(),
                extra.grantor.as_deref(),
            )));
        }
    }
}

/// Logins that are recorded and that no managed entry of an active tenant names: pending, retiring, or of a closed tenant.
/// Each acts as the group role in its setting; another access may have been configured when it was created.
fn check_replaced(view: &TenantView<'_>, findings: &mut Findings) {
    let Some(names) = view.names.as_ref().filter(|_| view.has_database()) else { return };
    let in_use = view.managed_entry().filter(|_| view.is(TenantStatus::Active)).map(|entry| &entry.login);
    let groups = [&names.roles.app, &names.roles.owner];
    let users = view.users.iter().filter(|user| user.status != UserStatus::Dropped && Some(&user.role) != in_use);
    for login in users.filter_map(|user| view.role(&user.role)).filter(|login| login.is_ours) {
        let is_member = |group: &RoleName| login.memberships.iter().any(|found| found.group == group.as_str());
        let of_setting = groups.into_iter().find(|group| role_setting(login) == Some(group.as_str()));
        let group = of_setting.or_else(|| groups.into_iter().find(|group| is_member(group)));
        check_extra(view, login, group.unwrap_or(&names.roles.app), findings);
    }
}

fn check_extra(view: &TenantView<'_>, login: &ObservedRole, group: &RoleName, findings: &mut Findings) {
    for extra in login.memberships.iter().filter(|found| found.group != group.as_str()) {
        let finding = view.draft(Code::LoginExtraMembership).object(format!("{} in {}", login.name, extra.group));
        let finding = finding.seen("grantor", &extra.grantor);
        let can_revoke = view.open_server().is_some_and(|server| server.can_revoke(extra.grantor.as_deref()));
        findings.push(match can_revoke {
            true => finding.repair(Repair::RevokeMembership { member: login.name.clone(), group: extra.group.clone() }),
            false => finding.no_repair(revoke_as_superuser(&extra.group, &login.name, extra.grantor.as_deref())),
        });
    }
}
