//! The checks: pure functions from what was observed to findings. A new check is a file and a line in [`CHECKS`].
use super::code::Code;
use super::finding::Findings;
use super::view::{Expected, LandlordView, ServerView, TenantView};

mod admin_members;
mod closed;
mod database;
mod ddl;
mod entrants;
mod hidden;
mod keys;
mod login;
mod maintenance;
mod memberships;
mod placement;
mod privileges;
mod provisioner;
mod rights;
mod schema;
mod secret;
mod server;
#[cfg(test)]
mod tests;
mod unreadable;
pub(super) use keys::of_key;
pub(super) use schema::of_schema_error;
pub(super) use unreadable::{of_corrupt, of_row};

/// One check and the codes that it may produce.
pub(crate) struct Check {
    pub(crate) codes: &'static [Code],
    pub(crate) run: CheckFn,
}

/// What a check looks at.
#[derive(Clone, Copy)]
pub(crate) enum CheckFn {
    Landlord(fn(&LandlordView, &Expected, &mut Findings)),
    Server(fn(&ServerView, &Expected, &mut Findings)),
    Tenant(fn(&TenantView<'_>, &Expected, &mut Findings)),
    /// The examination calls it, when it cannot read the landlord at all.
    Examination,
}

/// All checks. Each code belongs to one of them, except `cannot_see`.
pub(crate) const CHECKS: &[Check] = &[
    // Isolation
    closed::CHECK,
    entrants::CHECK,
    admin_members::CHECK,
    maintenance::CHECK,
    privileges::CHECK,
    ddl::CHECK,
    rights::CHECK,
    // Whether the tenant can be used
    placement::CHECK,
    database::CHECK,
    login::CHECK,
    memberships::CHECK,
    secret::CHECK,
    // Servers, keys and the landlord
    provisioner::CHECK,
    server::CHECK,
    keys::CHECK,
    schema::CHECK,
    unreadable::CHECK,
    hidden::CHECK,
];

/// Runs the checks of the landlord.
pub(super) fn check_landlord(view: &LandlordView, expected: &Expected, findings: &mut Findings) {
    for check in CHECKS {
        if let CheckFn::Landlord(run) = check.run {
            run(view, expected, findings);
        }
    }
}

/// Runs the checks of a server.
pub(super) fn check_server(view: &ServerView, expected: &Expected, findings: &mut Findings) {
    for check in CHECKS {
        if let CheckFn::Server(run) = check.run {
            run(view, expected, findings);
        }
    }
}

/// Runs the checks of a tenant.
pub(super) fn check_tenant(view: &TenantView<'_>, expected: &Expected, findings: &mut Findings) {
    for check in CHECKS {
        if let CheckFn::Tenant(run) = check.run {
            run(view, expected, findings);
        }
    }
}
