//! Whether the application's group role may create objects, although its login acts as that role and not as the owner.
use super::{Check, CheckFn};
use crate::directory::AppAccess;
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, TenantView};
use crate::sql::quote_identifier;

pub(super) const CHECK: Check = Check { codes: &[Code::AppCanCreate], run: CheckFn::Tenant(run) };

fn run(view: &TenantView<'_>, expected: &Expected, findings: &mut Findings) {
    let (Some(objects), Some(names)) = (view.objects.read(), &view.names) else { return };
    if expected.access == Some(AppAccess::Owner) {
        return;
    }
    for schema in objects.iter().filter(|row| row.kind == "app_can_create").map(|row| &row.object) {
        let app = &names.roles.app;
        let finding = view.draft(Code::AppCanCreate).object(schema.as_str()).seen("role", app);
        findings.push(match schema.as_str() {
            "public" => finding.repair(Repair::RestoreSchema),
            _ => finding.no_repair(format!(
                "tenantry manages only the schema public; run in a migration, or as the owner of the schema: \
                 REVOKE CREATE ON SCHEMA {} FROM {}",
                quote_identifier(schema),
                quote_identifier(app)
            )),
        });
    }
}
