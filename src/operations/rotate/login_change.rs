//! Chooses the new login of a rotation, and defines what the journal stores about the change.
//!
//! The step `secrets.seal` stores a [`LoginChange`]; all later steps, on any node, read it from there. A generation is
//! never used twice for a tenant.
use crate::cluster::{OperationContext, TenantLocation};
use crate::directory::{DatabaseUser, Generation, TenantDatabase, UserStatus};
use crate::error::{ChangeError, StepError};
use crate::names::RoleName;
use crate::operations::managed::managed_primary;
use crate::tenant::{Tenant, TenantId, TenantStatus};
use futures_util::future::try_join3;
use serde::{Deserialize, Serialize};

/// The stored name of the step whose output is the [`LoginChange`].
pub(crate) const SEAL: &str = "secrets.seal";
/// The new login and the old one that it replaces, as the journal stores them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LoginChange {
    /// The new login.
    pub(crate) login: RoleName,
    /// Generation of the new login.
    pub(crate) generation: Generation,
    /// Generation of the old login.
    pub(crate) from: Generation,
    /// The old login.
    pub(crate) old: RoleName,
}

/// Reads the tenant's directory entries and its primary entry, and chooses the new login: a pending one that an earlier
/// worker has stored, or else one of the next generation.
pub(super) async fn choose_login(
    stores: &OperationContext, id: TenantId, location: Option<TenantLocation>,
) -> Result<(Vec<TenantDatabase>, TenantDatabase, DatabaseUser), StepError> {
    let registry = &stores.registry;
    let reads = try_join3(registry.find(id.into()), registry.databases(id), registry.users(id));
    let (tenant, entries, users) = reads.await?;
    require_active(tenant)?;
    let entry = require_managed(&entries, location.as_ref())?.clone();
    let location = location.ok_or_else(|| StepError::fail(ChangeError::NoEntry))?;
    // The login in use is never the new one, whatever is recorded about it: it would be dropped as the old one.
    if let Some(pending) = users.iter().find(|u| u.status == UserStatus::Pending && u.role != entry.login) {
        return Ok((entries, entry, pending.clone()));
    }
    // Never use a login name twice: a retirement of an earlier login with this name may still be in flight on some
    // node, and would drop the new login.
    let newest = users.iter().map(|u| u.generation).max().unwrap_or(entry.generation).max(entry.generation);
    let generation = Generation(newest.0 + 1);
    let role = location.names.login(generation).map_err(StepError::fail)?;
    let user = DatabaseUser::pending(id, location.server.name, location.names.database, role, generation);
    Ok((entries, entry, user))
}

/// Fails unless the tenant is active. The call checked this before the operation had its lane, but a preempting
/// operation may have suspended or archived the tenant in between.
fn require_active(tenant: Option<Tenant>) -> Result<(), StepError> {
    match tenant.map(|tenant| tenant.status()) {
        Some(TenantStatus::Active) => Ok(()),
        Some(found) => Err(StepError::fail(ChangeError::Status { found })),
        None => Err(StepError::fail(ChangeError::Unknown)),
    }
}

/// The tenant's primary entry. Fails unless it is active and names the database of the tenant's placement. tenantry did
/// not create the login of any other entry, so a rotation must not replace it.
pub(super) fn require_managed<'a>(
    entries: &'a [TenantDatabase], location: Option<&TenantLocation>,
) -> Result<&'a TenantDatabase, StepError> {
    managed_primary(entries, location.map(|l| (&l.server.name, &l.names.database))).map_err(StepError::fail)
}
