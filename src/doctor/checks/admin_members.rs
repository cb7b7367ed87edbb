//! Whether another role than the provisioner's logins is a member of the admin role, or of one of those logins. It could
//! enter every database. And whether those logins are members of further roles, which the set-up does not grant.
use super::entrants::granted_by;
use super::{Check, CheckFn};
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, ServerView};
use crate::sql::quote_identifier;

pub(super) const CHECK: Check =
    Check { codes: &[Code::AdminMember, Code::ProvisionerMembership], run: CheckFn::Server(run) };

/// Roles of PostgreSQL by which the provisioner sees and ends sessions. A server admin may grant them to its logins.
const GRANTED: [&str; 3] = ["pg_read_all_stats", "pg_signal_backend", "pg_monitor"];

fn run(view: &ServerView, _: &Expected, findings: &mut Findings) {
    check_members(view, findings);
    check_provisioner(view, findings);
}

fn check_provisioner(view: &ServerView, findings: &mut Findings) {
    let names = &view.server.names;
    for login in [&names.blue, &names.green].into_iter().filter_map(|login| view.roles.get(login.as_str())) {
        let is_due = |group: &str| group == names.admin.as_str() || GRANTED.contains(&group);
        for extra in login.memberships.iter().filter(|found| !is_due(&found.group)) {
            let finding = view.draft(Code::ProvisionerMembership).object(format!("{} in {}", login.name, extra.group));
            findings.push(finding.seen("membership", extra).no_repair(format!(
                "the set-up does not grant it; only a server admin can revoke it; run as one: REVOKE {} FROM {}{}",
                quote_identifier(&extra.group),
                quote_identifier(&login.name),
                granted_by(extra.grantor.as_deref()),
            )));
        }
    }
}

fn check_members(view: &ServerView, findings: &mut Findings) {
    let names = &view.server.names;
    let own = [names.blue.as_str(), names.green.as_str()];
    let mut roles: Vec<_> = view.roles.values().filter(|role| !own.contains(&role.name.as_str())).collect();
    roles.sort_by(|a, b| a.name.cmp(&b.name));
    for role in roles {
        // From PostgreSQL 16 on the creator of a role keeps a membership with the ADMIN option only.
        let groups = [names.admin.as_str(), own[0], own[1]];
        let acts = role.memberships.iter().find(|m| groups.contains(&m.group.as_str()) && (m.inherit || m.set));
        let Some(membership) = acts else { continue };
        let member = &role.name;
        let finding = view.draft(Code::AdminMember).object(member.as_str()).seen("membership", membership);
        findings.push(finding.seen("can_login", role.can_login).no_repair(format!(
            "only a server admin can change the members of the provisioner's roles; run as one: REVOKE {} FROM {}{}",
            quote_identifier(&membership.group),
            quote_identifier(member),
            granted_by(membership.grantor.as_deref()),
        )));
    }
}
