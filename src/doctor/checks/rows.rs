//! Rows of the landlord that are left or out of date: placements without a tenant, old addresses, ended retentions.
use super::{Check, CheckFn};
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, TenantView};
use crate::tenant::TenantStatus;

pub(super) const CHECK: Check =
    Check { codes: &[Code::PlacementLeft, Code::AddressOutdated, Code::PurgeOverdue], run: CheckFn::Tenant(run) };

fn run(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    check_placement(view, findings);
    check_address(view, findings);
    check_retention(view, findings);
}

fn check_placement(view: &TenantView<'_>, findings: &mut Findings) {
    let is_gone = view.tenant.is_none() || view.is(TenantStatus::Deleted);
    let Some(placement) = view.placement.as_ref().filter(|_| is_gone) else { return };
    let finding = view.draft(Code::PlacementLeft).object(placement.database.as_str()).seen("server", &placement.server);
    findings.push(finding.seen("has_database", view.database().is_some()).no_repair(
        "the placement keeps the database name and a place on the server; look at the database, then drop it and delete \
         the row of tenantry.placements, or restore the tenant's row from a backup of the landlord",
    ));
}

/// After a relocation the entries keep the address that they had, so this is never more than a notice.
fn check_address(view: &TenantView<'_>, findings: &mut Findings) {
    let (Some(entry), Some(server)) = (view.managed_entry(), view.open_server()) else { return };
    let server = &server.server;
    if server.is_at(&entry.host, entry.port) {
        return;
    }
    let finding = view.draft(Code::AddressOutdated).seen("entry", (&entry.host, entry.port));
    findings.push(
        finding
            .seen("server", (&server.host, server.port))
            .no_repair("nothing is to be done: connections use the address in the server's row"),
    );
}

fn check_retention(view: &TenantView<'_>, findings: &mut Findings) {
    let kept_until = view.tenant.as_ref().and_then(|tenant| tenant.kept_until());
    if view.is(TenantStatus::Archived) && kept_until.is_some_and(|until| until <= view.now) {
        let finding = view.draft(Code::PurgeOverdue).seen("kept_until", kept_until.map(|until| until.to_string()));
        findings.push(finding.no_repair("a purge destroys the data, so a person decides; call purge_due()"));
    }
}
