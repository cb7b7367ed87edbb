//! Migrates the databases of existing tenants, and compares each tenant's ledger with this program's migrations.
//!
//! A migration is a saga of the change lane: create the migrator login, run the migrations, close the ledger (sqlx's
//! table of applied migrations) to the application, drop the migrator. Applied migrations are never reverted, and the
//! migrator login exists only during the operation. [`Tenantry::migrate`](crate::Tenantry::migrate) begins it.
//!
//! The tenant must be active, or suspended if the request allows that. A suspended tenant stays closed to its own
//! login: the migrator is another one. An activation is refused while a worker drives the migration.
use crate::error::ChangeError;
use crate::tenant::{Tenant, TenantId, TenantStatus};
use serde::{Deserialize, Serialize};

mod context;
mod driver;
mod saga;
mod schema_state;
mod steps;
pub use crate::cluster::{MigrationState, MigrationStatus};
#[doc(hidden)]
pub use driver::Migrate;
pub(crate) use driver::Migration;

/// The request as the journal stores it.
#[derive(Serialize, Deserialize)]
struct Request {
    tenant: TenantId,
    to: Option<i64>,
    /// Whether the tenant may be suspended. Absent if not, as in requests that an earlier version has stored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    suspended: bool,
}

impl Request {
    /// Fails unless the tenant has a status in which this request may migrate it.
    fn check_status(&self, tenant: &Tenant) -> Result<(), ChangeError> {
        match tenant.status() {
            TenantStatus::Active => Ok(()),
            TenantStatus::Suspended if self.suspended => Ok(()),
            found => Err(ChangeError::Status { found }),
        }
    }
}

/// The stored kind of the operation.
pub(crate) const KIND: &str = "migrate";

/// A migrated tenant, with its newest applied version before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Migrated {
    /// The tenant, after the migration.
    pub tenant: Tenant,
    /// Newest applied migration version before the operation; `None` if no migration had run.
    pub from: Option<i64>,
    /// Newest applied migration version after the operation; `None` if the program has no migrations.
    pub to: Option<i64>,
    /// Versions that had not run before the operation, oldest first: it has run them. Empty if nothing was to be done.
    #[serde(default)]
    pub applied: Vec<i64>,
}
