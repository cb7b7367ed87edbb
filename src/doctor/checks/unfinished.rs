//! Tenants that are neither usable nor gone, and for which no operation is open that would change that.
use super::{Check, CheckFn};
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, TenantView};
use crate::tenant::TenantStatus;

pub(super) const CHECK: Check = Check { codes: &[Code::TenantUnfinished], run: CheckFn::Tenant(run) };

fn run(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    let is_unfinished = view.is(TenantStatus::Provisioning) || view.is(TenantStatus::Purging);
    if is_unfinished && !view.has_open_operation {
        findings.push(view.draft(Code::TenantUnfinished).no_repair(
            "its operation was abandoned, so what exists of it is unknown; remove all of it with purge(tenant).force()",
        ));
    }
}
