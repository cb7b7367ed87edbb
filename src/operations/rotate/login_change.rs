//! Which login a rotation replaces, and by which one.
use crate::cluster::{OperationContext, TenantLocation};
use crate::directory::{DatabaseKind, DatabaseStatus, DatabaseUser, Generation, TenantDatabase, UserStatus};
use crate::error::{ChangeError, StepError};
use crate::names::RoleName;
use crate::tenant::{Tenant, TenantId, TenantStatus};
use futures_util::future::try_join3;
use serde::{Deserialize, Serialize};

/// The stored names of the steps whose answers count later.
pub(super) const SEAL: &str = "secrets.seal";
/// From which login to which.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LoginChange {
    pub(super) login: RoleName,
    pub(super) generation: Generation,
    pub(super) from: Generation,
    pub(super) old: RoleName,
}

/// The tenant's entries, the one that is in use, and the new login: the one that is pending, or else the next one.
pub(super) async fn next(
    stores: &OperationContext, id: TenantId, place: Option<TenantLocation>,
) -> Result<(Vec<TenantDatabase>, TenantDatabase, DatabaseUser), StepError> {
    let registry = &stores.registry;
    let known = try_join3(registry.find(id.into()), registry.databases(id), registry.users(id));
    let (tenant, entries, users) = known.await?;
    only_active(tenant)?;
    let place = place.ok_or_else(|| StepError::fail("the tenant has no place"))?;
    let entry = ours(primary(&entries).cloned(), &place)?;
    if let Some(pending) = users.iter().find(|u| u.status == UserStatus::Pending) {
        return Ok((entries, entry, pending.clone()));
    }
    // No name comes back: a retirer of long ago may still drop it.
    let last = users.iter().map(|u| u.generation).max().unwrap_or(entry.generation).max(entry.generation);
    let generation = Generation(last.0 + 1);
    let role = place.names.login(generation).map_err(StepError::fail)?;
    let user = DatabaseUser::pending(id, place.server.name, place.names.database, role, generation);
    Ok((entries, entry, user))
}

/// It was active before the lane was taken, and a fence may have ended in between.
fn only_active(tenant: Option<Tenant>) -> Result<(), StepError> {
    match tenant.map(|tenant| tenant.status()) {
        Some(TenantStatus::Active) => Ok(()),
        Some(found) => Err(StepError::fail(ChangeError::Status { found })),
        None => Err(StepError::fail(ChangeError::Unknown)),
    }
}

pub(super) fn primary(entries: &[TenantDatabase]) -> Option<&TenantDatabase> {
    entries.iter().find(|e| e.kind == DatabaseKind::Primary)
}

/// An entry on a shared login, or on a server that is not ours, has nothing to rotate.
pub(super) fn ours(entry: Option<TenantDatabase>, place: &TenantLocation) -> Result<TenantDatabase, StepError> {
    let entry = entry.ok_or_else(|| StepError::fail("the tenant has no directory entry"))?;
    let ours = entry.server.as_ref() == Some(&place.server.name) && entry.database == place.names.database;
    match entry.status {
        DatabaseStatus::Active if ours => Ok(entry),
        _ => Err(StepError::fail("the tenant's login was not made by tenantry; adopt its database first")),
    }
}
