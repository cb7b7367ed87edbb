//! What keeps a suspension, an archive or a purge from beginning: a database that no operation can close.
use crate::cluster::OperationContext;
use crate::directory::{DatabaseKind, DatabaseStatus, Driver, TenantDatabase};
use crate::error::ChangeError;
use crate::store::registry::Placement;
use crate::tenant::TenantId;

/// Every database that the tenant's directory names is one that an operation can close: the database of its placement, or a
/// standby of that.
///
/// # Errors
/// [`ChangeError::UnmanagedEntry`] names the first one that is not.
pub(super) async fn verify_entries(stores: &OperationContext, tenant: TenantId) -> Result<(), ChangeError> {
    let placement = stores.servers.placement(tenant).await?;
    for entry in stores.registry.databases(tenant).await? {
        if !is_managed(&entry, placement.as_ref()) {
            return Err(ChangeError::UnmanagedEntry {
                kind: entry.kind,
                driver: entry.driver,
                database: entry.database.to_string(),
                address: format!("{}:{}", entry.host, entry.port),
            });
        }
    }
    Ok(())
}

fn is_managed(entry: &TenantDatabase, placement: Option<&Placement>) -> bool {
    let Some(placement) = placement else { return false };
    let own = entry.kind == DatabaseKind::Primary
        && entry.status == DatabaseStatus::Active
        && entry.driver == Driver::Postgres
        && entry.server.as_ref() == Some(&placement.server)
        && entry.database == placement.database;
    own || entry.is_standby_of(&placement.database)
}
