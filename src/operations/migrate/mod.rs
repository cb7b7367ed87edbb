//! Migrates the databases of existing tenants, and compares each tenant's ledger with this program's migrations.
//!
//! A migration is a saga of the change lane: create the migrator login, run the migrations, close the ledger (sqlx's
//! table of applied migrations) to the application, drop the migrator. Applied migrations are never reverted, and the
//! migrator login exists only during the operation. [`Tenantry::migrate`](crate::Tenantry::migrate) begins it.
use crate::tenant::Tenant;
use serde::{Deserialize, Serialize};

mod context;
mod driver;
mod saga;
mod status;
mod steps;
#[doc(hidden)]
pub use driver::Migrate;
pub(crate) use driver::Migration;
pub use status::{MigrationState, MigrationStatus};

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
}
