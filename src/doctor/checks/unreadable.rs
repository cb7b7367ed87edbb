//! Rows of the landlord that cannot be parsed.
use super::{Check, CheckFn};
use crate::doctor::code::Code;
use crate::doctor::finding::{Draft, Finding, Findings};
use crate::doctor::view::{Expected, LandlordView};
use crate::error::{StoreError, UnreadableRow};
use crate::operation::Subject;

pub(super) const CHECK: Check = Check { codes: &[Code::RowUnreadable], run: CheckFn::Landlord(run) };

fn run(view: &LandlordView, _: &Expected, findings: &mut Findings) {
    for row in &view.unreadable {
        findings.push(of_row(row));
    }
}

/// The finding for the row because of which a read failed; `None` if the read failed for another reason.
pub(in crate::doctor) fn of_corrupt(error: &StoreError) -> Option<Finding> {
    let StoreError::Corrupt(cause) = error else { return None };
    Some(match cause.as_dyn().downcast_ref::<UnreadableRow>() {
        Some(row) => of_row(row),
        None => of_row(&UnreadableRow::new("*", "unknown", error.clone())),
    })
}

/// The finding for one row.
pub(in crate::doctor) fn of_row(row: &UnreadableRow) -> Finding {
    let finding = Draft::new(Code::RowUnreadable, Subject::Landlord).object(format!("{}/{}", row.table(), row.id()));
    let finding = finding.seen("table", row.table()).noted("error", crate::error::chain(row));
    finding.no_repair("correct the row by SQL, or use the version of tenantry that wrote it")
}
