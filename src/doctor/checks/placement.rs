//! Whether directory entry, placement and server agree on where the tenant's database is.
use super::{Check, CheckFn};
use crate::cluster::pg::observe::INVALID;
use crate::directory::{DatabaseStatus, TenantDatabase};
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, TenantView};
use crate::store::registry::Placement;
use crate::tenant::TenantStatus;

pub(super) const CHECK: Check =
    Check { codes: &[Code::EntryMissing, Code::PlacementMissing, Code::EntryElsewhere], run: CheckFn::Tenant(run) };

fn run(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    match (view.primary(), &view.placement) {
        (None, placement) if view.is(TenantStatus::Active) => check_missing_entry(view, placement.as_ref(), findings),
        (Some(entry), None) if view.has_database() && is_managed(entry) => check_unplaced(view, entry, findings),
        (Some(entry), Some(placement)) if view.has_database() && is_managed(entry) => {
            check_place(view, entry, placement, findings);
        }
        _ => {}
    }
}

/// Whether tenantry has provisioned the entry's database.
fn is_managed(entry: &TenantDatabase) -> bool {
    entry.status == DatabaseStatus::Active && entry.server.is_some()
}

fn check_missing_entry(view: &TenantView<'_>, placement: Option<&Placement>, findings: &mut Findings) {
    let finding = view.draft(Code::EntryMissing);
    let Some(placement) = placement else {
        return findings.push(finding.seen("placement", false).no_repair(
            "the tenant has neither an entry nor a placement, so its database is not known; store an entry with \
             registry_writer().put_database(), or purge the tenant",
        ));
    };
    let finding = finding.seen("server", &placement.server).seen("database", &placement.database);
    findings.push(match find_obstacle(view, true) {
        None => finding.repair(Repair::RestoreEntry),
        Some(obstacle) => finding.no_repair(format!("the entry is not written: {obstacle}")),
    });
}

fn check_unplaced(view: &TenantView<'_>, entry: &TenantDatabase, findings: &mut Findings) {
    let finding = view.draft(Code::PlacementMissing);
    let finding = finding.seen("server", &entry.server).seen("database", &entry.database);
    findings.push(match find_obstacle(view, false) {
        None => finding.repair(Repair::RestorePlacement),
        Some(obstacle) => finding.no_repair(format!("the placement is not stored: {obstacle}")),
    });
}

fn check_place(view: &TenantView<'_>, entry: &TenantDatabase, placement: &Placement, findings: &mut Findings) {
    if entry.server.as_ref() == Some(&placement.server) && entry.database == placement.database {
        return;
    }
    let finding = view.draft(Code::EntryElsewhere).seen("entry_server", &entry.server);
    let finding = finding.seen("entry_database", &entry.database).seen("server", &placement.server);
    findings.push(finding.seen("database", &placement.database).no_repair(
        "only a person knows which of the two databases holds the tenant's data; correct the entry with \
         registry_writer().put_database()",
    ));
}

/// Why the database cannot be used as the tenant's. `with_roles` requires its group roles too, and that it is open.
fn find_obstacle(view: &TenantView<'_>, with_roles: bool) -> Option<String> {
    let Some(names) = &view.names else { return Some("the name of the database is too long for tenantry".into()) };
    let Some(server) = view.server else { return Some("its server is not registered".into()) };
    let Some(server) = Some(server).filter(|server| server.is_open()) else {
        return Some(format!("the server {} cannot be examined", server.name()));
    };
    let Some(database) = view.database() else {
        return Some(format!("the database {} does not exist on the server {}", names.database, server.name()));
    };
    if !server.owns(database) {
        return Some(format!("the role {} does not own the database {}", server.server.names.admin, names.database));
    }
    if !with_roles {
        return None;
    }
    if !database.is_open || database.connection_limit == INVALID || database.has_login_trigger {
        return Some(format!("the database {} cannot be entered", names.database));
    }
    let missing = [&names.roles.owner, &names.roles.app].into_iter().find(|role| {
        let found = view.role(role);
        !found.is_some_and(|found| found.is_ours)
    });
    missing.map(|role| format!("the role {role} does not exist, or this installation has not created it"))
}
