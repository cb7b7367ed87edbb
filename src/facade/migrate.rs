//! The methods that migrate the tenants' databases.
//!
//! `Tenantry::migrate` returns a [`Call`]; `migrate_all` returns a [`Batch`].
//!
//! Invariants:
//! - A batch reads the table of applied migrations of each active tenant and migrates only those that are not at head.
//! - A tenant whose database has migrations that this program does not have is left as it is.
use super::batch::BatchVerb;
use super::{Batch, Call, Tenantry};
use crate::error::ChangeError;
use crate::operations::migrate::{Migrate, Migrated, Migration, MigrationState, MigrationStatus};
use crate::tenant::{Tenant, TenantRef, TenantStatus};
use async_trait::async_trait;

#[async_trait]
impl BatchVerb for Migrate {
    /// Whether suspended tenants are included.
    type Options = bool;
    fn driver(on: &Tenantry) -> &Migration {
        &on.inner.migration
    }
    fn is_candidate(tenant: &Tenant, suspended: &bool) -> bool {
        match tenant.status() {
            TenantStatus::Active => true,
            TenantStatus::Suspended => *suspended,
            _ => false,
        }
    }
    /// The ledger of a suspended tenant cannot be read by the application's login, so its operation decides.
    async fn is_due(on: &Tenantry, tenant: &Tenant, _: &bool) -> Result<bool, ChangeError> {
        if tenant.status() == TenantStatus::Suspended {
            return Ok(true);
        }
        match on.migration_status(tenant).await?.state {
            MigrationState::AtHead => Ok(false),
            MigrationState::Ahead { version } => Err(ChangeError::Ahead { version }),
            _ => Ok(true),
        }
    }
    fn for_tenant(tenant: &Tenant, suspended: &bool) -> Self {
        let mut migrate = Self::new(tenant.into());
        migrate.suspended = *suspended;
        migrate
    }
    fn has_changed(migrated: &Migrated) -> bool {
        !migrated.applied.is_empty()
    }
}

impl Call<Migrate> {
    /// Migrates the tenant also if it is suspended. It stays suspended: its own login stays refused, and only the
    /// operation's migrator connects to its database. [`activate`](Tenantry::activate) fails with
    /// [`ChangeError::Busy`] while the migration runs.
    pub fn include_suspended(mut self) -> Self {
        self.verb.suspended = true;
        self
    }
}

impl Batch<Migrate> {
    /// Migrates suspended tenants too, as [`Call::include_suspended`] does. By default they are only counted in
    /// [`BatchReport::suspended`](super::BatchReport::suspended). Each needs an operation even if it is at head,
    /// because its own login cannot read the table of applied migrations.
    pub fn include_suspended(mut self) -> Self {
        self.options = true;
        self
    }
}

impl Tenantry {
    /// Runs the migrations of this program that the tenant's database has not run yet.
    ///
    /// Fails with [`ChangeError::Ahead`] if the database has migrations that this program does not have, and with
    /// [`ChangeError::NotProvisioned`] if tenantry did not create the database. If another session has the lock that
    /// sqlx's `Migrator` takes, it waits ten seconds for it; then the failure names that session.
    pub fn migrate<'a>(&self, tenant: impl Into<TenantRef<'a>>) -> Call<Migrate> {
        Call::new(self, &self.inner.migration, Migrate::new(tenant.into()))
    }
    /// [`migrate`](Self::migrate)s every active tenant that is not at head. It skips tenants that are at head already,
    /// so a second call continues a batch that was interrupted. Tenants that a newer program has migrated, suspended
    /// and archived tenants are left as they are and counted in the report.
    pub fn migrate_all(&self) -> Batch<Migrate> {
        Batch::new(self)
    }
    /// Compares the migrations that ran in the tenant's database with the migrations of this program.
    pub async fn migration_status<'a>(&self, tenant: impl Into<TenantRef<'a>>) -> Result<MigrationStatus, ChangeError> {
        self.inner.migration.status(tenant.into()).await
    }
}
