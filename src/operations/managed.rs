//! Checks, before an operation begins, that it can work on the databases in a tenant's directory.
//!
//! A migration and a rotation require a primary entry that tenantry created. Every operation refuses a primary entry
//! whose driver is not implemented. The checks read only the landlord and connect to nothing.
use crate::cluster::OperationContext;
use crate::directory::{DatabaseKind, DatabaseStatus, Driver, TenantDatabase};
use crate::error::ChangeError;
use crate::names::{DatabaseName, ServerName};
use crate::tenant::TenantId;
use futures_util::future::try_join;

/// Verifies that the tenant's primary entry is in use and names the database of the tenant's placement.
///
/// # Errors
/// [`ChangeError::NoEntry`], [`ChangeError::NotBuilt`] or [`ChangeError::NotProvisioned`].
pub(crate) async fn require_managed(stores: &OperationContext, tenant: TenantId) -> Result<(), ChangeError> {
    let reads = try_join(stores.registry.databases(tenant), stores.servers.placement(tenant));
    let (entries, placement) = reads.await?;
    managed_primary(&entries, placement.as_ref().map(|p| (&p.server, &p.database))).map(drop)
}

/// As [`require_managed`], for entries that were read already. Returns the primary entry.
pub(crate) fn managed_primary<'a>(
    entries: &'a [TenantDatabase], placed: Option<(&ServerName, &DatabaseName)>,
) -> Result<&'a TenantDatabase, ChangeError> {
    let primary = find_primary(entries).ok_or(ChangeError::NoEntry)?;
    require_built(primary)?;
    let is_placed = placed
        .is_some_and(|(server, database)| primary.server.as_ref() == Some(server) && primary.database == *database);
    match primary.status {
        DatabaseStatus::Active if is_placed => Ok(primary),
        _ => Err(ChangeError::NotProvisioned { database: primary.database.to_string(), address: address(primary) }),
    }
}

/// The tenant's primary entry.
pub(crate) fn find_primary(entries: &[TenantDatabase]) -> Option<&TenantDatabase> {
    entries.iter().find(|e| e.kind == DatabaseKind::Primary)
}

/// Refuses a tenant whose primary entry has a driver that is not implemented. A tenant without a primary entry passes.
pub(crate) async fn require_built_primary(stores: &OperationContext, tenant: TenantId) -> Result<(), ChangeError> {
    let entries: Vec<TenantDatabase> = stores.registry.databases(tenant).await?;
    find_primary(&entries).map_or(Ok(()), require_built)
}

/// Refuses an entry whose driver is not implemented.
pub(crate) fn require_built(entry: &TenantDatabase) -> Result<(), ChangeError> {
    match entry.driver {
        Driver::Postgres => Ok(()),
        driver => Err(ChangeError::NotBuilt { driver, database: entry.database.to_string(), address: address(entry) }),
    }
}

/// Host and port of the entry, for an error.
pub(crate) fn address(entry: &TenantDatabase) -> String {
    format!("{}:{}", entry.host, entry.port)
}
