//! How a role or database on a server is recognised as one of this installation.
//!
//! Two things together: its exact name is in a committed intent or placement, and the admin role owns the database or
//! has the ADMIN option on the role. Functions that change or drop an object take an [`Ownership`] and verify the
//! second.
use crate::names::RoleName;

/// Prefix of every marker, in all installations.
pub(crate) const MARK: &str = "tenantry ";

/// The marker and the admin role by which a tenant's objects are recognised, in addition to their names.
#[derive(Clone, Debug)]
pub(crate) struct Ownership {
    /// The comment on each role, which names the installation and the tenant. It is informative, since an administrator
    /// may change it, except that PostgreSQL 15 has no other record of a role's creator (see `RoleFacts::is_made`).
    pub(crate) marker: String,
    /// The owner of each database and the creator of each role.
    pub(crate) admin: RoleName,
}
