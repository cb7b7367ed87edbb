//! From a name to a handle: registry, then vault, then a pool that has not connected yet.
use super::super::{TenantPool, connect, pool::Renewal};
use super::cache::Ticket;
use super::{PooledResolver, Shared};
use crate::database::{DatabaseKind, Driver, TenantDatabase};
use crate::error::ResolveError;
use crate::ident::{Domain, Slug};
use crate::tenant::{Tenant, TenantRef, TenantStatus};
use sqlx::postgres::{PgPool, PgPoolOptions};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A tenant that nobody asks for holds no connection for longer.
const IDLE: Duration = Duration::from_secs(60);

impl PooledResolver {
    pub(super) async fn cold(&self, name: &TenantRef<'static>, read: Ticket) -> Result<TenantPool, ResolveError> {
        parse(name)?;
        let tenant = self.admitted(name).await?;
        let entry = self.entry(&tenant).await?;
        let known = self.0.state().cache.of_entry(&entry).cloned();
        let handle = match known {
            Some(handle) => handle.of(&tenant),
            None => self.handle(tenant, self.connect_lazily(&entry).await?),
        };
        self.keep(name, handle, entry, read)
    }

    async fn admitted(&self, name: &TenantRef<'static>) -> Result<Tenant, ResolveError> {
        let found = self.0.registry.find(name.clone()).await?;
        let refusal = match &found {
            Some(tenant) if tenant.status() == TenantStatus::Active => return Ok(tenant.clone()),
            Some(tenant) => refusal(tenant),
            None => ResolveError::Unknown,
        };
        // Whoever has a handle may finish what is out: the server itself fences a tenant that is refused.
        let gone = found.map(|tenant| tenant.id()).or(match name {
            TenantRef::Id(id) => Some(*id),
            _ => None,
        });
        let pool = gone.and_then(|id| self.0.state().cache.forget(id));
        self.0.retire(pool);
        Err(refusal)
    }

    async fn entry(&self, tenant: &Tenant) -> Result<TenantDatabase, ResolveError> {
        let entries = self.0.registry.databases(tenant.id()).await?;
        let primary = entries.into_iter().find(|entry| entry.kind == DatabaseKind::Primary);
        match primary.ok_or_else(|| ResolveError::NoEntry(tenant.clone()))? {
            TenantDatabase { driver, .. } if driver != Driver::Postgres => {
                Err(ResolveError::NotBuilt { tenant: tenant.clone(), driver })
            }
            entry => Ok(entry),
        }
    }

    async fn connect_lazily(&self, entry: &TenantDatabase) -> Result<PgPool, ResolveError> {
        let password = self.0.vault.open(&entry.credential).await?;
        let options = PgPoolOptions::new()
            .max_connections(self.0.settings.max_connections_per_tenant)
            .acquire_timeout(self.0.settings.acquire_timeout)
            .idle_timeout(IDLE)
            .test_before_acquire(true);
        Ok(options.connect_lazy_with(connect::options(entry, &password)))
    }

    fn handle(&self, tenant: Tenant, pool: PgPool) -> TenantPool {
        let from: Weak<Shared> = Arc::downgrade(&self.0);
        TenantPool::renewable(tenant, pool, Renewal { from, limit: self.0.settings.acquire_timeout })
    }

    fn keep(
        &self, name: &TenantRef<'static>, handle: TenantPool, entry: TenantDatabase, read: Ticket,
    ) -> Result<TenantPool, ResolveError> {
        let mut state = self.0.state();
        if self.0.stop.is_cancelled() {
            return Err(ResolveError::Closed);
        }
        let (handle, retired) = state.cache.keep(name, handle, entry, read);
        drop(state);
        self.0.retire(retired);
        Ok(handle)
    }
}

/// Before anybody is asked: garbage in a host header costs the landlord nothing.
fn parse(name: &TenantRef<'_>) -> Result<(), ResolveError> {
    match name {
        TenantRef::Id(_) => {}
        TenantRef::Slug(text) => drop(text.parse::<Slug>()?),
        TenantRef::Domain(text) => drop(text.parse::<Domain>()?),
    }
    Ok(())
}

fn refusal(tenant: &Tenant) -> ResolveError {
    match tenant.status() {
        TenantStatus::Provisioning => ResolveError::Provisioning(tenant.clone()),
        TenantStatus::Suspended => ResolveError::Suspended(tenant.clone()),
        TenantStatus::Archived => ResolveError::Archived(tenant.clone()),
        TenantStatus::Active | TenantStatus::Purging | TenantStatus::Deleted => ResolveError::Unknown,
    }
}
