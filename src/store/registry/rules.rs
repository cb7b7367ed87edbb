//! Rules for writes that need no store: which changes are allowed, and the error for each refusal.
//!
//! [`PgTenantRegistry`](super::PgTenantRegistry) and the registry in memory call them, so both refuse the same writes
//! with the same errors.
use super::{Placement, ServerLoad};
use crate::directory::{DatabaseKind, DatabaseStatus, DatabaseUser, Generation, TenantDatabase, UserStatus};
use crate::error::StoreError;
use crate::json;
use crate::names::{MAX_CERTIFICATES, ServerName, check_display_name, check_host, check_text};
use crate::server::{DatabaseServer, ServerStatus};
use crate::tenant::{Tenant, TenantStatus};

/// Refuses a new tenant that is not in provisioning.
pub(super) fn check_creation(tenant: &Tenant) -> Result<(), StoreError> {
    check_name(tenant)?;
    check_metadata(tenant)?;
    require(tenant.status() == TenantStatus::Provisioning, || "a new tenant must have the status provisioning".into())
}

/// Refuses a new display name that breaks a rule. A stored one stays usable.
fn check_name(tenant: &Tenant) -> Result<(), StoreError> {
    check_display_name(tenant.name()).map_err(|rule| StoreError::invalid("name", rule))
}

/// Refuses new metadata that cannot be stored and read back.
fn check_metadata(tenant: &Tenant) -> Result<(), StoreError> {
    json::check(tenant.metadata(), json::MAX_METADATA).map_err(|rule| StoreError::invalid("metadata", rule))
}

/// Refuses an entry whose host or settings cannot be stored.
pub(super) fn check_entry(entry: &TenantDatabase) -> Result<(), StoreError> {
    check_host(&entry.host).map_err(|rule| StoreError::invalid("host", rule))?;
    let settings = serde_json::to_value(&entry.settings).map_err(StoreError::refused)?;
    json::check(&settings, json::MAX_METADATA).map_err(|rule| StoreError::invalid("settings", rule))?;
    let credential = serde_json::to_value(&entry.credential).map_err(StoreError::refused)?;
    json::check(&credential, json::MAX_METADATA).map_err(|rule| StoreError::invalid("credential", rule))
}

/// Refuses a login whose reason cannot be stored.
pub(super) fn check_user(user: &DatabaseUser) -> Result<(), StoreError> {
    let reason = user.reason.as_deref().unwrap_or_default();
    check_text(reason, 0, json::MAX_METADATA).map_err(|rule| StoreError::invalid("reason", rule))
}

/// Refuses to store a login with the time of its drop unless it waits to be dropped.
pub(super) fn check_retiring(user: &DatabaseUser) -> Result<(), StoreError> {
    check_user(user)?;
    require(user.status == UserStatus::Retiring, || format!("a login that is {} has no time of its drop", user.status))
}

/// Checks an update. It refuses `Provisioning` to `Active`: only `publish` does that, so that no tenant is active
/// without a directory entry.
pub(super) fn check_update(from: &Tenant, to: &Tenant) -> Result<(), StoreError> {
    require(from.id() == to.id(), || "a tenant's id cannot change".into())?;
    if from.name() != to.name() {
        check_name(to)?;
    }
    if from.metadata() != to.metadata() {
        check_metadata(to)?;
    }
    let (was, becomes) = (from.status(), to.status());
    let is_publication = was == TenantStatus::Provisioning && becomes == TenantStatus::Active;
    let is_allowed = was == becomes || (was.can_become(becomes) && !is_publication);
    require(is_allowed, || format!("an update cannot change a tenant from {was} to {becomes}"))?;
    let can_have_deadline = matches!(becomes, TenantStatus::Archived | TenantStatus::Purging | TenantStatus::Deleted);
    require(can_have_deadline || to.kept_until().is_none(), || format!("a tenant that is {becomes} has no deadline"))
}

/// Refuses to publish an entry that is dropped, or for a tenant whose status does not allow it to become active.
pub(super) fn check_publication(expected: TenantStatus, entry: &TenantDatabase) -> Result<(), StoreError> {
    check_entry(entry)?;
    let can_be_active = expected == TenantStatus::Active || expected.can_become(TenantStatus::Active);
    require(can_be_active, || format!("a tenant that is {expected} cannot become active"))?;
    require(entry.status != DatabaseStatus::Dropped, || "a dropped entry cannot be published".into())
}

/// Refuses an entry with a lower generation than the one that it replaces.
pub(super) fn check_replacement(expected: Option<Generation>, entry: &TenantDatabase) -> Result<(), StoreError> {
    check_entry(entry)?;
    let is_older = expected.is_some_and(|expected| expected > entry.generation);
    require(!is_older, || "the generation of an entry cannot decrease".into())
}

/// Whether two entries have the same login, credential and generation.
pub(super) fn has_same_login(a: &TenantDatabase, b: &TenantDatabase) -> bool {
    (&a.login, &a.credential, a.generation) == (&b.login, &b.credential, b.generation)
}

pub(super) fn other_entry_status(found: DatabaseStatus) -> StoreError {
    StoreError::conflict(format!("the entry has the status {found}; read it again"))
}

/// Refuses to change the name of a server, and values that cannot be stored.
pub(super) fn check_server_change(from: Option<&DatabaseServer>, to: &DatabaseServer) -> Result<(), StoreError> {
    check_host(&to.host).map_err(|rule| StoreError::invalid("host", rule))?;
    let certificate = to.root_certificate.as_deref().unwrap_or_default();
    check_text(certificate, 0, MAX_CERTIFICATES).map_err(|rule| StoreError::invalid("root certificate", rule))?;
    if from.is_none_or(|from| from.labels != to.labels) {
        json::check(&to.labels, json::MAX_METADATA).map_err(|rule| StoreError::invalid("labels", rule))?;
    }
    require(from.is_none_or(|from| from.name == to.name), || "a server's name cannot change".into())
}

/// Whether this is an active primary on a registered server. Its login must be one of the tenant's users, and the write
/// makes it the only active one.
pub(super) fn is_active_managed_primary(entry: &TenantDatabase) -> bool {
    entry.kind == DatabaseKind::Primary && entry.status == DatabaseStatus::Active && entry.server.is_some()
}

/// Whether this is a primary entry in use.
/// Whether a repeated publication finds the entry that it has already written. The schema's state is not compared: a
/// program with other migrations may repeat it.
pub(super) fn is_published(stored: &TenantDatabase, entry: &TenantDatabase) -> bool {
    TenantDatabase { schema_state: entry.schema_state.clone(), ..stored.clone() } == *entry
}

pub(super) fn is_primary(entry: &TenantDatabase) -> bool {
    entry.kind == DatabaseKind::Primary && entry.status != DatabaseStatus::Dropped
}

/// Whether another tenant can be placed on the server.
pub(super) fn has_room(load: &ServerLoad) -> bool {
    let server = &load.server;
    server.status == ServerStatus::Ready && !server.draining && load.tenants < server.capacity
}

/// Compares a write of a user with the row that is stored under the same server and role. `Some` is the result of the
/// write; `None` if the row allows it.
pub(super) fn compare_with_stored_user(
    stored: Option<&DatabaseUser>, expected: Option<UserStatus>, user: &DatabaseUser,
) -> Option<Result<(), StoreError>> {
    match stored {
        Some(stored) if stored == user => Some(Ok(())),
        Some(stored) if stored.tenant != user.tenant => {
            Some(Err(StoreError::conflict("the login belongs to another tenant")))
        }
        Some(stored) if Some(stored.status) != expected => {
            Some(Err(StoreError::conflict(format!("the login has the status {}; read it again", stored.status))))
        }
        None if expected.is_some() => Some(Err(StoreError::conflict("the login does not exist"))),
        _ => None,
    }
}

pub(super) fn no_tenant() -> StoreError {
    StoreError::conflict("the tenant does not exist, or it is deleted")
}
pub(super) fn other_tenant() -> StoreError {
    StoreError::conflict("a tenant with this id and other properties exists")
}
pub(super) fn changed_tenant() -> StoreError {
    StoreError::conflict("the tenant has changed since it was read; read it again")
}
pub(super) fn other_status(status: &str, expected: TenantStatus) -> StoreError {
    StoreError::conflict(format!("the tenant is {status}, not {expected}"))
}
pub(super) fn still_placed() -> StoreError {
    StoreError::conflict("the tenant still has a placement; release it first")
}
pub(super) fn not_provisioning(status: &str) -> StoreError {
    StoreError::conflict(format!("the tenant is {status}; only a tenant in provisioning can be discarded"))
}
pub(super) fn no_entry() -> StoreError {
    StoreError::conflict("the directory entry does not exist")
}
pub(super) fn other_generation(stored: Generation) -> StoreError {
    StoreError::conflict(format!("the stored entry has generation {stored}; read it again"))
}
pub(super) fn other_server() -> StoreError {
    StoreError::conflict("the stored server differs from the expected one; read it again")
}
pub(super) fn no_login(entry: &TenantDatabase) -> StoreError {
    StoreError::conflict(format!("{} is not a login of this tenant's database; call put_user first", entry.login))
}
pub(super) fn second_primary() -> StoreError {
    StoreError::conflict("the tenant has another primary entry; set it to dropped first")
}
pub(super) fn second_active() -> StoreError {
    StoreError::conflict("another login of this database is active")
}
pub(super) fn no_server(name: &ServerName) -> StoreError {
    StoreError::conflict(format!("the server {name} is not registered; set it up first"))
}
pub(super) fn server_in_use(name: &ServerName) -> StoreError {
    StoreError::conflict(format!("tenants are placed on the server {name}"))
}
pub(super) fn already_placed(stored: &Placement) -> StoreError {
    StoreError::conflict(format!("the tenant is already placed: database {} on {}", stored.database, stored.server))
}

fn require(condition: bool, why: impl FnOnce() -> String) -> Result<(), StoreError> {
    if condition { Ok(()) } else { Err(StoreError::conflict(why())) }
}
