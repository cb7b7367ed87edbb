//! Rotation: gives a tenant a new login, moves all nodes to it and drops the old one.
//!
//! The steps are: store the new password, create the new login, probe it, flip the directory entry by one
//! compare-and-set, then let the old login drain, set NOLOGIN and drop it. The flip is the pivot step. An old login
//! that cannot be dropped does not fail the rotation: it stays in the registry as `Retiring`, with the reason, and
//! [`Tenantry::retire_due`](crate::Tenantry::retire_due) retries until it is dropped.
//!
//! Nodes do not report that they use the new login. The worker asks PostgreSQL whether the old login still has
//! sessions, and lets it stay valid until they have ended or the grace period is over. After that PostgreSQL refuses
//! the old login (SQLSTATE 28000), and the resolver of the refused node reads the new one.
use crate::directory::{AppAccess, Generation};
use crate::tenant::{Tenant, TenantId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

mod context;
mod driver;
mod login_change;
mod retire;
mod saga;
mod steps;
pub(crate) use context::RotateContext;
#[doc(hidden)]
pub use driver::Rotate;
pub(crate) use driver::Rotation;
pub(crate) use login_change::{LoginChange, SEAL};
pub use retire::RetireReport;
pub(crate) use retire::queue_replaced;
pub(crate) use steps::{FLIP, RotateStep};

/// How long the old login stays valid while it has sessions, if the caller sets no grace period.
pub(crate) const GRACE: Duration = Duration::from_secs(30);

/// Properties that every application login of this installation has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AppLogin {
    /// Rights of the application's logins in their tenant's database.
    pub access: AppAccess,
    /// CONNECTION LIMIT of each login: most sessions over all nodes; -1 for no limit. A rotation also sets it on the
    /// old login.
    pub connection_limit: i32,
}
impl AppLogin {
    /// Logins with these rights and this CONNECTION LIMIT.
    pub(crate) fn new(access: AppAccess, connection_limit: i32) -> Self {
        Self { access, connection_limit }
    }
}

/// The request as the journal stores it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) tenant: TenantId,
    pub(crate) grace_ms: u64,
    /// Whether an old login that still has sessions shortly after the flip is left to the retirement queue, which drops
    /// it when the grace period is over. The operation of a batch does not wait for it, so that the grace periods of
    /// many tenants overlap. Absent if not, as in requests that an earlier version has stored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) defers_drop: bool,
}

/// A tenant after a rotation, with its new login.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rotated {
    /// The tenant, after the rotation.
    pub tenant: Tenant,
    /// Generation of the login that the tenant has now.
    pub generation: Generation,
    /// Why the old login could not be dropped; `None` if it was dropped. The drop is retried until it succeeds. After a
    /// rotation with a zero grace period the old login can no longer enter the tenant's database in the meantime.
    pub retiring: Option<String>,
}
