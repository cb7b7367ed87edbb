//! What may be written, decided without a store: the same for every implementation of ours.
use super::{Placement, ServerLoad};
use crate::directory::{DatabaseKind, DatabaseStatus, DatabaseUser, Generation, TenantDatabase, UserStatus};
use crate::error::StoreError;
use crate::names::ServerName;
use crate::server::{DatabaseServer, ServerStatus};
use crate::tenant::{Tenant, TenantStatus};

pub(super) fn creation(tenant: &Tenant) -> Result<(), StoreError> {
    only_if(tenant.status() == TenantStatus::Provisioning, || "a new tenant is in provisioning".into())
}

/// Out of provisioning into use there is `publish` alone: without a directory entry nobody is active.
pub(super) fn change(from: &Tenant, to: &Tenant) -> Result<(), StoreError> {
    only_if(from.id() == to.id(), || "a tenant's id does not change".into())?;
    let (was, becomes) = (from.status(), to.status());
    let published = was == TenantStatus::Provisioning && becomes == TenantStatus::Active;
    let allowed = was == becomes || (was.can_become(becomes) && !published);
    only_if(allowed, || format!("a tenant that is {was} does not become {becomes} by an update"))?;
    let kept = matches!(becomes, TenantStatus::Archived | TenantStatus::Purging | TenantStatus::Deleted);
    only_if(kept || to.kept_until().is_none(), || format!("a tenant that is {becomes} has no deadline"))
}

pub(super) fn publication(expected: TenantStatus, entry: &TenantDatabase) -> Result<(), StoreError> {
    let alive = expected == TenantStatus::Active || expected.can_become(TenantStatus::Active);
    only_if(alive, || format!("a tenant that is {expected} does not become active"))?;
    only_if(entry.status != DatabaseStatus::Dropped, || "a dropped entry is not published".into())
}

pub(super) fn replacement(expected: Option<Generation>, entry: &TenantDatabase) -> Result<(), StoreError> {
    let back = expected.is_some_and(|expected| expected > entry.generation);
    only_if(!back, || "a generation does not go back".into())
}

/// Whether an entry has the login of another one.
pub(super) fn same_login(a: &TenantDatabase, b: &TenantDatabase) -> bool {
    (&a.login, &a.credential, a.generation) == (&b.login, &b.credential, b.generation)
}

pub(super) fn entry_status(found: DatabaseStatus) -> StoreError {
    StoreError::conflict(format!("the entry is {found}"))
}

pub(super) fn server_change(from: Option<&DatabaseServer>, to: &DatabaseServer) -> Result<(), StoreError> {
    only_if(from.is_none_or(|from| from.name == to.name), || "a server's name does not change".into())
}

/// An active primary on a server of ours: its login is one of the tenant's users, and the only active one.
pub(super) fn brings_login(entry: &TenantDatabase) -> bool {
    entry.kind == DatabaseKind::Primary && entry.status == DatabaseStatus::Active && entry.server.is_some()
}

pub(super) fn is_primary(entry: &TenantDatabase) -> bool {
    entry.kind == DatabaseKind::Primary && entry.status != DatabaseStatus::Dropped
}

pub(super) fn has_room(load: &ServerLoad) -> bool {
    let server = &load.server;
    server.status == ServerStatus::Ready && !server.draining && load.tenants < server.capacity
}

/// What the row that is stored under the user's server and role says to a write of the user; `None`: nothing.
pub(super) fn stored_user(
    stored: Option<&DatabaseUser>, expected: Option<UserStatus>, user: &DatabaseUser,
) -> Option<Result<(), StoreError>> {
    match stored {
        Some(stored) if stored == user => Some(Ok(())),
        Some(stored) if stored.tenant != user.tenant => {
            Some(Err(StoreError::conflict("the login is another tenant's")))
        }
        Some(stored) if Some(stored.status) != expected => {
            Some(Err(StoreError::conflict(format!("the login is {}", stored.status))))
        }
        None if expected.is_some() => Some(Err(StoreError::conflict("there is no such login"))),
        _ => None,
    }
}

pub(super) fn no_tenant() -> StoreError {
    StoreError::conflict("there is no such tenant, or it is deleted")
}
pub(super) fn other_tenant() -> StoreError {
    StoreError::conflict("this tenant is there already, and is another one")
}
pub(super) fn changed_tenant() -> StoreError {
    StoreError::conflict("the tenant has changed meanwhile")
}
pub(super) fn other_status(status: &str, expected: TenantStatus) -> StoreError {
    StoreError::conflict(format!("the tenant is {status}, not {expected}"))
}
pub(super) fn still_placed() -> StoreError {
    StoreError::conflict("the tenant still has a place; release it first")
}
pub(super) fn not_provisioning(status: &str) -> StoreError {
    StoreError::conflict(format!("the tenant is {status}; only one in provisioning is discarded"))
}
pub(super) fn no_entry() -> StoreError {
    StoreError::conflict("there is no such entry")
}
pub(super) fn other_generation(stored: Generation) -> StoreError {
    StoreError::conflict(format!("the stored entry has generation {stored}"))
}
pub(super) fn other_server() -> StoreError {
    StoreError::conflict("the stored server is another one")
}
pub(super) fn no_login(entry: &TenantDatabase) -> StoreError {
    StoreError::conflict(format!("{} is no login of this tenant's database; put it first", entry.login))
}
pub(super) fn second_primary() -> StoreError {
    StoreError::conflict("the tenant has another primary; drop it first")
}
pub(super) fn second_active() -> StoreError {
    StoreError::conflict("another login of this database is active")
}
pub(super) fn no_server(name: &ServerName) -> StoreError {
    StoreError::conflict(format!("there is no server {name}; set it up first"))
}
pub(super) fn inhabited(name: &ServerName) -> StoreError {
    StoreError::conflict(format!("tenants have places on {name}"))
}
pub(super) fn placed(stored: &Placement) -> StoreError {
    StoreError::conflict(format!("the tenant has the place {} on {}", stored.database, stored.server))
}

fn only_if(yes: bool, why: impl FnOnce() -> String) -> Result<(), StoreError> {
    if yes { Ok(()) } else { Err(StoreError::conflict(why())) }
}
