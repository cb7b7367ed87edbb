//! Databases and roles that no placement names, for example after the landlord was restored from an old backup. They are
//! not this installation's until a person names them, so nothing here is ever changed.
use super::{Check, CheckFn};
use crate::cluster::pg::observe::{ObservedDatabase, ObservedRole};
use crate::cluster::pg::ownership::MARK;
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, ServerView};

pub(super) const CHECK: Check =
    Check { codes: &[Code::OrphanDatabase, Code::OrphanRole, Code::LookAlike], run: CheckFn::Server(run) };

fn run(view: &ServerView, _: &Expected, findings: &mut Findings) {
    for database in view.unplaced_databases.iter().filter_map(|name| view.databases.get(name)) {
        check_database(view, database, findings);
    }
    for role in view.unplaced_roles.iter().filter_map(|name| view.roles.get(name)) {
        check_role(view, role, findings);
    }
}

/// Whether the comment is that of an object of this installation. It proves nothing: every role can write such a text on
/// its own objects.
fn is_marked(view: &ServerView, comment: Option<&str>) -> bool {
    comment.is_some_and(|comment| comment.starts_with(&format!("{MARK}{}", view.installation)))
}

fn check_database(view: &ServerView, database: &ObservedDatabase, findings: &mut Findings) {
    let name = database.name.as_str();
    if view.owns(database) {
        let finding = view.draft(Code::OrphanDatabase).object(name).seen("comment", &database.comment);
        return findings.push(finding.no_repair(
            "it may hold the only copy of a tenant's data; restore the tenant's rows from a backup of the landlord, or look \
             into the database and drop it by name",
        ));
    }
    if is_marked(view, database.comment.as_deref()) {
        let finding = view.draft(Code::LookAlike).object(name).seen("owner", &database.owner);
        findings.push(finding.no_repair("another role owns the database, so it is not one of this installation"));
    }
}

fn check_role(view: &ServerView, role: &ObservedRole, findings: &mut Findings) {
    if !is_marked(view, role.comment.as_deref()) {
        return;
    }
    let code = if role.is_ours { Code::OrphanRole } else { Code::LookAlike };
    let finding = view.draft(code).object(role.name.as_str()).seen("can_login", role.can_login);
    findings.push(finding.no_repair(match role.is_ours {
        true => "no tenant uses it; if its database is gone too, drop it by name",
        false => "the admin role has no ADMIN option on it, so it is not one of this installation",
    }));
}
