//! Who owns the objects in a tenant's database, and which rights on them other roles have.
use super::login_rights::is_login;
use super::{Check, CheckFn};
use crate::cluster::pg::observe::{MAX_OBJECTS, ObservedObject};
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::{Draft, Finding, Findings};
use crate::doctor::view::{Expected, TenantView};
use std::collections::BTreeMap;

pub(super) const CHECK: Check = Check {
    codes: &[
        Code::SchemaOwner,
        Code::SchemaPublic,
        Code::ObjectOwner,
        Code::ObjectPublic,
        Code::ObjectGranted,
        Code::CannotSee,
    ],
    run: CheckFn::Tenant(run),
};

fn run(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    let (Some(rows), Some(server)) = (view.objects.read(), view.open_server()) else { return };
    report_incomplete(view, rows, findings);
    for ((kind, role), objects) in group(rows) {
        let Some(code) = code_of(kind) else { continue };
        // What was granted to a login of the tenant is a finding of its own.
        let is_login = server.roles.get(role).is_some_and(|role| is_login(view, role));
        if code == Code::ObjectGranted && (server.is_exempt(role) || is_login) {
            continue;
        }
        let finding = view.draft(code).object(if role.is_empty() { "PUBLIC" } else { role }).seen("objects", &objects);
        findings.push(propose(finding, view, code, role, &objects));
    }
}

/// A kind of which the query has returned as many rows as it may: there may be more.
fn report_incomplete(view: &TenantView<'_>, rows: &[ObservedObject], findings: &mut Findings) {
    let mut counts = BTreeMap::<_, usize>::new();
    rows.iter().for_each(|row| *counts.entry(row.kind.as_str()).or_default() += 1);
    // Both kinds come from one part of the query.
    let (owned, granted) = ("object_owner", "object_granted");
    let both = counts.get(owned).unwrap_or(&0) + counts.get(granted).unwrap_or(&0);
    if both >= MAX_OBJECTS {
        counts.extend([(owned, both), (granted, both)]);
    }
    let full: Vec<_> = counts.into_iter().filter(|(_, count)| *count >= MAX_OBJECTS).map(|(kind, _)| kind).collect();
    if !full.is_empty() {
        let finding = view.draft(Code::CannotSee).object("more objects").seen("kinds", &full).noted("codes", &full);
        findings.push(finding.no_repair(
            "the examination reads the first hundred deviations of a kind; correct those, then examine the tenant again",
        ));
    }
}

fn code_of(kind: &str) -> Option<Code> {
    match kind {
        "schema_owner" => Some(Code::SchemaOwner),
        "schema_public" => Some(Code::SchemaPublic),
        "object_owner" => Some(Code::ObjectOwner),
        "object_public" => Some(Code::ObjectPublic),
        "object_granted" => Some(Code::ObjectGranted),
        _ => None,
    }
}

/// The objects of each kind and role.
fn group(rows: &[ObservedObject]) -> BTreeMap<(&str, &str), Vec<&str>> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for row in rows {
        let role = row.role.as_deref().unwrap_or_default();
        groups.entry((row.kind.as_str(), role)).or_default().push(row.object.as_str());
    }
    groups.values_mut().for_each(|objects| objects.sort_unstable());
    groups
}

fn propose(finding: Draft, view: &TenantView<'_>, code: Code, role: &str, objects: &[&str]) -> Finding {
    match code {
        // The role that owns the schema in a new database. Every member of it is the owner of the database.
        Code::SchemaOwner if role == "pg_database_owner" => finding.repair(Repair::RestoreSchema),
        Code::SchemaOwner => finding.no_repair(format!(
            "the provisioner may not take the schema from the role {role}; run as a superuser: ALTER SCHEMA public OWNER \
             TO the tenant's owner role"
        )),
        Code::SchemaPublic if objects.iter().all(|right| right.ends_with(" on schema public")) => {
            finding.repair(Repair::RestoreSchema)
        }
        Code::SchemaPublic => finding.no_repair(
            "tenantry manages only the schema public; revoke the rights of PUBLIC in a migration, as the schema's owner",
        ),
        Code::ObjectOwner => propose_owner(finding, view, role),
        Code::ObjectPublic => finding.no_repair(
            "only the tenant's own logins can enter the database; if the rights are not meant, revoke them in a migration",
        ),
        _ => finding.no_repair(
            "the rights may be meant, for example for reports; if not, revoke them as the owner of the objects",
        ),
    }
}

/// Only what a login of this tenant owns is given to its group role. What another role owns may be meant, and REASSIGN
/// OWNED would also hand over the databases of that role.
fn propose_owner(finding: Draft, view: &TenantView<'_>, role: &str) -> Finding {
    let login = Some(role).filter(|role| view.is_login_name(role)).and_then(|role| role.parse().ok());
    let is_ours = login.as_ref().is_some_and(|login| view.role(login).is_some_and(|found| found.is_ours));
    match login {
        Some(login) if is_ours => finding.repair(Repair::ReassignObjects { login }),
        _ => finding.no_repair(format!(
            "the role {role} is not one of the tenant's logins; run for each object as a superuser: ALTER … OWNER TO the \
             tenant's owner role"
        )),
    }
}
