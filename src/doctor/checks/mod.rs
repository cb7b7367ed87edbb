//! The checks: pure functions from what was observed to findings. A new check is a file and a line in [`CHECKS`].
use super::code::Code;
use super::finding::Findings;
use super::view::{Expected, LandlordView, ServerView, TenantView};

/// One check and the codes that it may produce.
pub(crate) struct Check {
    pub(crate) codes: &'static [Code],
    pub(crate) run: CheckFn,
}

/// What a check looks at.
pub(crate) enum CheckFn {
    Landlord(fn(&LandlordView, &Expected, &mut Findings)),
    Server(fn(&ServerView, &Expected, &mut Findings)),
    Tenant(fn(&TenantView<'_>, &Expected, &mut Findings)),
}

/// All checks. A tenant's checks run in this order, and the first one that finds no database ends them.
pub(crate) const CHECKS: &[Check] = &[];
