//! Whether the tenant's database exists, belongs to the admin role, and is open or closed as the tenant's status says.
use super::login::can_rotate;
use super::{Check, CheckFn};
use crate::cluster::pg::ddl::CLEAN_UP_LIMIT;
use crate::cluster::pg::observe::{INVALID, ObservedDatabase};
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, ServerView, TenantView};
use crate::sql::quote_identifier;
use crate::tenant::TenantStatus;

pub(super) const CHECK: Check = Check {
    codes: &[
        Code::DatabaseMissing,
        Code::DatabaseOwner,
        Code::DatabaseInvalid,
        Code::DatabaseClosed,
        Code::DatabaseLeftOpen,
    ],
    run: CheckFn::Tenant(run),
};

fn run(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    let (Some(server), Some(placement), true) = (view.open_server(), &view.placement, view.has_database()) else {
        return;
    };
    let name = placement.database.as_str();
    let Some(database) = view.database() else {
        let finding = view.draft(Code::DatabaseMissing).object(name).seen("server", server.name());
        return findings.push(finding.no_repair(
            "its data is not on this server; restore a backup under this name with the owner of the other tenants' \
             databases, or purge the tenant",
        ));
    };
    if !server.owns(database) {
        check_owner(view, server, database, findings);
    }
    if database.connection_limit == INVALID {
        let finding = view.draft(Code::DatabaseInvalid).object(name).seen("connection_limit", INVALID);
        return findings.push(finding.no_repair(
            "PostgreSQL can only drop it now; purge the tenant, or drop the database and restore a backup under its name",
        ));
    }
    check_open(view, server, database, findings);
}

fn check_owner(view: &TenantView<'_>, server: &ServerView, database: &ObservedDatabase, findings: &mut Findings) {
    let (name, admin) = (&database.name, &server.server.names.admin);
    let finding = view.draft(Code::DatabaseOwner).object(name.as_str()).seen("owner", &database.owner);
    findings.push(finding.no_repair(format!(
        "only a superuser can give it back; run as one: ALTER DATABASE {} OWNER TO {}",
        quote_identifier(name),
        quote_identifier(admin)
    )));
}

fn check_open(view: &TenantView<'_>, server: &ServerView, database: &ObservedDatabase, findings: &mut Findings) {
    let name = database.name.as_str();
    if view.is(TenantStatus::Active) && !database.is_open {
        let finding = view.draft(Code::DatabaseClosed).object(name).seen("is_open", false);
        findings.push(match (server.owns(database), can_rotate(view)) {
            (true, true) => finding.repair(Repair::RestoreAccess),
            (false, _) => finding.no_repair("the admin role does not own the database"),
            (true, false) => {
                finding.no_repair("one of the tenant's group roles is missing, or not of this installation")
            }
        });
    }
    if view.is(TenantStatus::Archived) && database.is_open && database.connection_limit == CLEAN_UP_LIMIT {
        let finding = view.draft(Code::DatabaseLeftOpen).object(name).seen("is_open", true);
        findings.push(match server.owns(database) {
            true => finding.repair(Repair::CloseLeftOpen),
            false => finding.no_repair("the admin role does not own the database"),
        });
    }
}
