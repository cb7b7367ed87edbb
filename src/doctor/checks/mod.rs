//! The checks: pure functions from what was observed to findings. A new check is a file and a line in [`CHECKS`].
use super::code::Code;
use super::finding::Findings;
use super::view::{Expected, FleetView, LandlordView, ServerView, TenantView};

mod admin_members;
mod blockers;
mod closed;
#[cfg(test)]
mod content_tests;
mod database;
mod ddl;
mod entrants;
mod fleet;
mod held;
mod hidden;
mod indexes;
mod keys;
mod leftovers;
mod login;
mod login_rights;
mod maintenance;
mod memberships;
mod migrations;
mod objects;
mod operations;
mod orphans;
mod placement;
mod privileges;
mod provisioner;
mod retiring;
mod rights;
mod rows;
mod schema;
mod secret;
mod sequences;
mod server;
mod sources;
#[cfg(test)]
mod tests;
mod unfinished;
mod unreadable;
mod users;
mod writable;
pub(super) use keys::of_key;
pub(super) use retiring::may_be_overdue;
pub(super) use schema::of_schema_error;
pub(super) use unreadable::{of_corrupt, of_row};

/// One check and the codes that it may produce.
pub(crate) struct Check {
    #[cfg_attr(not(test), expect(dead_code, reason = "a test compares them with all codes"))]
    pub(crate) codes: &'static [Code],
    pub(crate) run: CheckFn,
}

/// What a check looks at.
#[derive(Clone, Copy)]
pub(crate) enum CheckFn {
    Landlord(fn(&LandlordView, &Expected, &mut Findings)),
    Server(fn(&ServerView, &Expected, &mut Findings)),
    Tenant(fn(&TenantView<'_>, &Expected, &mut Findings)),
    /// Compares the servers with each other and with the nodes.
    Fleet(fn(&FleetView, &Expected, &mut Findings)),
    /// Looks at more than one kind of view.
    Several(&'static [CheckFn]),
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
    login_rights::CHECK,
    // Whether the tenant can be used
    placement::CHECK,
    database::CHECK,
    login::CHECK,
    memberships::CHECK,
    secret::CHECK,
    // The recorded logins
    users::CHECK,
    retiring::CHECK,
    leftovers::CHECK,
    // Migrations, operations and sessions
    migrations::CHECK,
    operations::CHECK,
    unfinished::CHECK,
    blockers::CHECK,
    // Servers, keys and the landlord
    provisioner::CHECK,
    server::CHECK,
    keys::CHECK,
    schema::CHECK,
    unreadable::CHECK,
    hidden::CHECK,
    // Content, capacity and leftovers
    writable::CHECK,
    sequences::CHECK,
    objects::CHECK,
    indexes::CHECK,
    held::CHECK,
    fleet::CHECK,
    orphans::CHECK,
    rows::CHECK,
    sources::CHECK,
];

impl CheckFn {
    /// The functions for each kind of view.
    fn parts(&'static self) -> &'static [Self] {
        match self {
            Self::Several(parts) => parts,
            one => std::slice::from_ref(one),
        }
    }
}

fn all_runs() -> impl Iterator<Item = &'static CheckFn> {
    CHECKS.iter().flat_map(|check| check.run.parts())
}

/// Runs the checks of the landlord.
pub(super) fn check_landlord(view: &LandlordView, expected: &Expected, findings: &mut Findings) {
    for run in all_runs() {
        if let CheckFn::Landlord(run) = run {
            run(view, expected, findings);
        }
    }
}

/// Runs the checks that compare servers.
pub(super) fn check_fleet(view: &FleetView, expected: &Expected, findings: &mut Findings) {
    for run in all_runs() {
        if let CheckFn::Fleet(run) = run {
            run(view, expected, findings);
        }
    }
}

/// Runs the checks of a server.
pub(super) fn check_server(view: &ServerView, expected: &Expected, findings: &mut Findings) {
    for run in all_runs() {
        if let CheckFn::Server(run) = run {
            run(view, expected, findings);
        }
    }
}

/// Runs the checks of a tenant.
pub(super) fn check_tenant(view: &TenantView<'_>, expected: &Expected, findings: &mut Findings) {
    for run in all_runs() {
        if let CheckFn::Tenant(run) = run {
            run(view, expected, findings);
        }
    }
}
