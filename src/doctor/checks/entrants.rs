//! Whether another role than the tenant's logins can enter the database of an active tenant.
use super::login::can_rotate;
use super::{Check, CheckFn};
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::{Draft, Finding, Findings};
use crate::doctor::view::{Expected, ServerView, TenantView};
use crate::names::TenantNames;
use crate::sql::quote_identifier;
use crate::tenant::TenantStatus;

pub(super) const CHECK: Check = Check { codes: &[Code::ForeignEntrant], run: CheckFn::Tenant(run) };

fn run(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    let (Some(server), Some(names), true) = (view.open_server(), &view.names, view.is(TenantStatus::Active)) else {
        return;
    };
    for role in server.entrants.get(names.database.as_str()).into_iter().flatten() {
        if !server.is_exempt(role) && !is_own(view, server, names, role) {
            let finding = view.draft(Code::ForeignEntrant).object(role.as_str()).seen("database", &names.database);
            findings.push(propose(finding, view, server, names, role));
        }
    }
}

/// Whether the role is a login of this tenant. One that is not recorded, or should not exist any more, is a finding of
/// its own.
fn is_own(view: &TenantView<'_>, server: &ServerView, names: &TenantNames, role: &str) -> bool {
    let is_ours = server.roles.get(role).is_some_and(|found| found.is_ours);
    is_ours && (role == names.migrator.as_str() || view.is_login_name(role))
        || view.users.iter().any(|user| user.role.as_str() == role)
}

fn propose(finding: Draft, view: &TenantView<'_>, server: &ServerView, names: &TenantNames, role: &str) -> Finding {
    if role == "PUBLIC" {
        return match can_rotate(view) {
            true => finding.repair(Repair::RestoreAccess),
            false => finding.no_repair(format!(
                "one of the tenant's group roles is missing, or not of this installation; run as the database's owner: \
                 REVOKE ALL ON DATABASE {} FROM PUBLIC",
                quote_identifier(&names.database)
            )),
        };
    }
    let groups = [names.roles.owner.as_str(), names.roles.app.as_str()];
    let memberships = server.roles.get(role).into_iter().flat_map(|found| &found.memberships);
    let Some(membership) = memberships.into_iter().find(|membership| groups.contains(&membership.group.as_str()))
    else {
        return finding.no_repair(format!(
            "the role is not one of this installation; if it may not enter, run as a superuser: \
             REVOKE CONNECT ON DATABASE {} FROM {}, or revoke the membership that grants it",
            quote_identifier(&names.database),
            quote_identifier(&role)
        ));
    };
    let (group, grantor) = (membership.group.clone(), membership.grantor.as_deref());
    let finding = finding.seen("group", &group).seen("grantor", grantor);
    match server.can_revoke(grantor) {
        true => finding.repair(Repair::RevokeMembership { member: role.to_owned(), group }),
        false => finding.no_repair(revoke_as_superuser(&group, role, grantor)),
    }
}

/// Why a membership that another role has granted is not revoked.
pub(super) fn revoke_as_superuser(group: &str, member: &str, grantor: Option<&str>) -> String {
    let (group, member, by) = (quote_identifier(&group), quote_identifier(&member), granted_by(grantor));
    format!("another role has granted the membership; run as a superuser: REVOKE {group} FROM {member}{by}")
}

/// The end of a REVOKE that names the grantor, as PostgreSQL 16 and later need it.
pub(super) fn granted_by(grantor: Option<&str>) -> String {
    grantor.map(|grantor| format!(" GRANTED BY {}", quote_identifier(&grantor))).unwrap_or_default()
}
