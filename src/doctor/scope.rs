//! What an examination covers.
use crate::names::ServerName;
use crate::store::registry::TenantRegistry;
use crate::tenant::TenantRef;
use std::sync::Arc;

/// The part of the installation that an examination covers; by default all of it.
#[derive(Clone, Default)]
pub(crate) struct Scope {
    /// Only this tenant.
    pub(crate) tenant: Option<TenantRef<'static>>,
    /// Only this server and its tenants.
    pub(crate) server: Option<ServerName>,
    /// Whether only the landlord is read, and no server is connected to.
    pub(crate) landlord_only: bool,
    /// Whether no session of an application's login is opened.
    pub(crate) skips_logins: bool,
    /// The application's second registry, which must name the same databases.
    pub(crate) second: Option<Arc<dyn TenantRegistry>>,
}
