//! What makes an object on a server one of this installation.
use crate::names::RoleName;

/// What every marker begins with, of whichever installation.
pub(crate) const MARK: &str = "tenantry ";

/// What makes an object ours beside its exact name, which stands in a placement or an intent.
#[derive(Clone, Debug)]
pub(crate) struct Ownership {
    /// The comment on each role, for people: installation and tenant. It decides nothing.
    pub(crate) marker: String,
    /// The owner of each database and the creator of each role.
    pub(crate) admin: RoleName,
}
