//! What an examination covers.
use crate::names::ServerName;
use crate::tenant::TenantRef;
use std::collections::HashSet;

/// The part of the installation that an examination covers; by default all of it.
#[derive(Clone, Default)]
pub(crate) struct Scope {
    /// Only this tenant.
    pub(crate) tenant: Option<TenantRef<'static>>,
    /// Only this server and its tenants.
    pub(crate) server: Option<ServerName>,
    /// Whether no session of an application's login is opened.
    pub(crate) skips_logins: bool,
    /// Servers for which the caller gave an admin's connection, so that provisioner logins can be repaired there.
    pub(crate) admins: HashSet<ServerName>,
}
