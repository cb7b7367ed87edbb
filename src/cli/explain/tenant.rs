//! The errors of calls about tenants.
use super::{causes, explain_busy, explain_failure};
use crate::cli::failure::CommandError;
use crate::cli::output::show_time;
use crate::error::{ChangeError, ProvisionError, chain};
use crate::tenant::TenantStatus;
use std::fmt::Display;

/// No tenant has the name that the caller gave.
pub(in crate::cli) fn explain_unknown_tenant(tenant: &impl Display) -> CommandError {
    CommandError::failed(format!("no tenant has the slug, id or domain {tenant}")).next("tenants list")
}

/// The error of a call for this tenant.
pub(in crate::cli) fn explain_change(error: ChangeError, tenant: &impl Display) -> CommandError {
    match &error {
        ChangeError::Unknown => explain_unknown_tenant(tenant),
        ChangeError::Status { found } => explain_status(*found, tenant),
        ChangeError::Busy { operation, status } => explain_busy(*operation, *status),
        ChangeError::Kept { until } => {
            let until = until.map(|until| format!(" until {}", show_time(until))).unwrap_or_default();
            let text = format!("the data of {tenant} is kept{until}");
            CommandError::failed(text).next(format!("tenants purge {tenant} --force"))
        }
        ChangeError::Expired { since } => {
            let text =
                format!("the retention of the data of {tenant} ended at {}; it can only be purged", show_time(*since));
            CommandError::failed(text).next(format!("tenants purge {tenant}"))
        }
        ChangeError::NoMigrations => explain_no_migrations(),
        ChangeError::UnknownServer { server } => {
            CommandError::failed(format!("no server {server} is registered")).next("servers list")
        }
        ChangeError::Invalid { field, .. } => {
            CommandError::usage(format!("the {field} is not valid: {}", causes(&error)))
        }
        ChangeError::UnmanagedEntry { kind, driver, database, address } => {
            let text = format!(
                "the {kind} entry of {tenant} for the {driver} database {database:?} at {address} was not created by tenantry, which cannot close that database"
            );
            CommandError::failed(text)
                .hint("Close that database yourself, and set its entry to dropped in the application.")
        }
        ChangeError::Lifetime { .. } => {
            CommandError::usage("a temporary login lives for 1 second to 24 hours").hint("Add for example --for 1h.")
        }
        ChangeError::Failed(failure) => explain_failure(failure),
        ChangeError::Landlord(error) => error.clone().into(),
        ChangeError::Closed => CommandError::failed("interrupted"),
        _ => CommandError::failed(format!("{tenant}: {}", chain(&error))),
    }
}

fn explain_status(found: TenantStatus, tenant: &impl Display) -> CommandError {
    let error = CommandError::failed(format!("{tenant} is {found}, which does not allow this"));
    match found {
        TenantStatus::Suspended => error.next(format!("tenants activate {tenant}")),
        TenantStatus::Archived => error.next(format!("tenants restore {tenant}")),
        _ => error.next(format!("tenants show {tenant}")),
    }
}

/// A program without migrations must not say that a tenant is at head.
fn explain_no_migrations() -> CommandError {
    CommandError::usage(
        "this program has no migrations of the tenants' databases, so it can neither run nor compare them",
    )
    .hint("Set TENANTRY_MIGRATIONS or --migrations to the directory with them.")
    .hint("Or use the commands of the application's own program.")
}

impl From<ProvisionError> for CommandError {
    fn from(error: ProvisionError) -> Self {
        match &error {
            ProvisionError::Invalid { field, value, .. } => {
                Self::usage(format!("the {field} {value:?} is not valid: {}", causes(&error)))
            }
            ProvisionError::SlugTaken { slug, .. } => {
                Self::failed(format!("another tenant has the slug {slug}")).next(format!("tenants show {slug}"))
            }
            ProvisionError::DomainTaken { domain, .. } => {
                Self::failed(format!("another tenant has the domain {domain}")).next(format!("tenants show {domain}"))
            }
            ProvisionError::KeyReused { operation } => {
                let text = "this idempotency key was used for another request";
                Self::failed(text).operation(Some(*operation)).next(format!("operations show {operation}"))
            }
            ProvisionError::UnknownServer { server } => {
                Self::failed(format!("no server {server} is registered")).next(format!("servers set-up {server}"))
            }
            ProvisionError::NoRoom { servers: 0, .. } => {
                Self::failed("no server is set up for tenants").next("servers set-up main")
            }
            ProvisionError::NoRoom { .. } => Self::failed(error.to_string()).next("servers list"),
            ProvisionError::Failed(failure) => explain_failure(failure),
            ProvisionError::Landlord(error) => error.clone().into(),
            ProvisionError::Closed => Self::failed("interrupted"),
            _ => Self::failed(chain(&error)),
        }
    }
}
