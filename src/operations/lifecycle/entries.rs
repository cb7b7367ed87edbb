//! Checks that every database in a tenant's directory can be closed or opened by an operation.
//!
//! A suspension, an archive or a purge runs [`verify_entries`] before it begins and again as its first step. Otherwise
//! a tenant would count as closed while it can still use a database that tenantry does not manage.
use crate::cluster::OperationContext;
use crate::directory::{DatabaseKind, DatabaseStatus, TenantDatabase};
use crate::error::ChangeError;
use crate::operations::managed;
use crate::store::registry::Placement;
use crate::tenant::{Tenant, TenantStatus};

/// Verifies that every database in the tenant's directory is one that an operation can close: the database of its
/// placement, or a standby of that database.
///
/// The entries of a tenant that an earlier purge has removed from its server, and that has no placement any more, are not
/// checked: that purge was abandoned, and had checked them before it began.
///
/// # Errors
/// [`ChangeError::UnmanagedEntry`] names the first entry for which this is not so; [`ChangeError::NotBuilt`] an entry
/// whose driver is not implemented.
pub(super) async fn verify_entries(stores: &OperationContext, tenant: &Tenant) -> Result<(), ChangeError> {
    let placement = stores.servers.placement(tenant.id()).await?;
    if placement.is_none() && tenant.status() == TenantStatus::Purging {
        return Ok(());
    }
    for entry in stores.registry.databases(tenant.id()).await? {
        managed::require_built(&entry)?;
        if !is_managed(&entry, placement.as_ref()) {
            return Err(ChangeError::UnmanagedEntry {
                kind: entry.kind,
                driver: entry.driver,
                database: entry.database.to_string(),
                address: managed::address(&entry),
            });
        }
    }
    Ok(())
}

fn is_managed(entry: &TenantDatabase, placement: Option<&Placement>) -> bool {
    let Some(placement) = placement else { return false };
    let own = entry.kind == DatabaseKind::Primary
        && entry.status == DatabaseStatus::Active
        && entry.server.as_ref() == Some(&placement.server)
        && entry.database == placement.database;
    own || entry.is_standby_of(&placement.database)
}
