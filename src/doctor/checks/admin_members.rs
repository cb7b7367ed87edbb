//! Whether another role than the provisioner's logins is a member of the admin role, or of one of those logins. It could
//! enter every database.
use super::entrants::granted_by;
use super::{Check, CheckFn};
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, ServerView};
use crate::sql::quote_identifier;

pub(super) const CHECK: Check = Check { codes: &[Code::AdminMember], run: CheckFn::Server(run) };

fn run(view: &ServerView, _: &Expected, findings: &mut Findings) {
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
