//! From a name to a handle: registry, then vault, then a place at the server's budget. Nothing is connected yet.
use super::cache::{Entries, ReadStamp};
use super::{PooledResolver, Shared};
use crate::cluster::pg::ddl;
use crate::directory::{DatabaseKind, Driver, TenantDatabase};
use crate::error::{ResolveError, VaultError};
use crate::names::{Domain, Slug};
use crate::pool::budget::TenantShare;
use crate::pool::{Budgeted, Renewal, Replica};
use crate::pool::{TenantPool, connect};
use crate::tenant::{Tenant, TenantRef, TenantStatus};
use std::sync::{Arc, Weak};

impl PooledResolver {
    pub(super) async fn load(&self, name: &TenantRef<'static>, read: ReadStamp) -> Result<TenantPool, ResolveError> {
        parse(name)?;
        let tenant = self.admitted(name, read).await?;
        loop {
            let (handle, entries) = self.opened(&tenant).await?;
            if let Some(kept) = self.keep(name, handle, entries, read)? {
                return Ok(kept);
            }
        }
    }

    /// A rotation that ends between the two reads has forgotten the secret of the entry that was read: then there is another
    /// entry by now.
    async fn opened(&self, tenant: &Tenant) -> Result<(TenantPool, Entries), ResolveError> {
        let mut entries = self.entries(tenant).await?;
        loop {
            let known = self.0.state().cache.of_entries(&entries).cloned();
            if let Some(handle) = known {
                return Ok((handle.of(tenant), entries));
            }
            match self.handle(tenant.clone(), &entries).await {
                Ok(handle) => return Ok((self.at_head(handle).await?, entries)),
                Err(error @ ResolveError::Credential(VaultError::Missing(_))) => {
                    let now = self.entries(tenant).await?;
                    if now.primary.credential == entries.primary.credential {
                        return Err(error);
                    }
                    entries = now;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn admitted(&self, name: &TenantRef<'static>, read: ReadStamp) -> Result<Tenant, ResolveError> {
        let found = self.0.registry.find(name.clone()).await?;
        let refusal = match &found {
            Some(tenant) if tenant.status() == TenantStatus::Active => return Ok(tenant.clone()),
            Some(tenant) => refusal(tenant),
            None => {
                self.0.state().cache.keep_nobody(name.clone(), read);
                ResolveError::Unknown
            }
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

    async fn entries(&self, tenant: &Tenant) -> Result<Entries, ResolveError> {
        let mut entries = self.0.registry.databases(tenant.id()).await?;
        let primary = entries.iter().position(|entry| entry.kind == DatabaseKind::Primary);
        let primary = entries.swap_remove(primary.ok_or_else(|| ResolveError::NoEntry(tenant.clone()))?);
        if primary.driver != Driver::Postgres {
            return Err(ResolveError::NotBuilt { tenant: tenant.clone(), driver: primary.driver });
        }
        let row = self.0.find_row(tenant, &primary).await?;
        // The standby that took over keeps its entry until the host drops it; it is the primary now.
        let promoted = |entry: &TenantDatabase| row.as_ref().is_some_and(|row| row.is_at(&entry.host, entry.port));
        let standbys = entries.into_iter().filter(|entry| entry.is_standby_of(&primary.database) && !promoted(entry));
        let locate = |entry: TenantDatabase| row.as_ref().map(|row| row.locate(entry.clone())).unwrap_or(entry);
        let (primary, standbys) = (locate(primary.clone()), standbys.map(locate));
        let first = standbys.min_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
        // What counts of it is where it is, and how its sessions are set up. All else is the primary's.
        let replica = first
            .map(|e| Box::new(TenantDatabase { host: e.host, port: e.port, settings: e.settings, ..primary.clone() }));
        Ok(Entries { primary, replica })
    }

    async fn handle(&self, tenant: Tenant, entries: &Entries) -> Result<TenantPool, ResolveError> {
        let password = self.0.vault.open(&entries.primary.credential).await?;
        let settings = &self.0.settings;
        let member = |entry: &TenantDatabase| {
            let server = self.0.server(&entry.host, entry.port)?;
            let options = connect::options(entry, &password);
            Ok::<_, ResolveError>(TenantShare::new(tenant.id(), server, settings.max_connections_per_tenant, options))
        };
        let primary = Arc::new(member(&entries.primary)?);
        let replica = entries.replica.as_deref().map(member).transpose()?;
        let replica = replica.map(|member| Arc::new(Replica::new(member)));
        let from: Weak<Shared> = Arc::downgrade(&self.0);
        let renewal = Renewal { from, limit: settings.acquire_timeout };
        Ok(TenantPool::budgeted(tenant, Budgeted { primary, replica, renewal }))
    }

    /// As it is, if nothing is demanded of it.
    async fn at_head(&self, handle: TenantPool) -> Result<TenantPool, ResolveError> {
        let Some(migrations) = self.0.settings.head else { return Ok(handle) };
        let head = migrations.iter().filter(|m| !m.migration_type.is_down_migration()).map(|m| m.version).max();
        let Some(head) = head else { return Ok(handle) };
        let applied = async {
            let mut session = handle.acquire().await?;
            ddl::ledger(&migrations.table_name, &mut session).await
        };
        // Its server does not answer, or there is no ledger: it is not known to be there.
        let newest = match applied.await {
            Ok(rows) => rows.into_iter().filter(|row| row.2).map(|row| row.0).max(),
            Err(error) => {
                tracing::debug!(tenant = %handle.tenant().id(), %error, "a ledger of migrations is not to be read");
                None
            }
        };
        match newest {
            Some(newest) if newest >= head => Ok(handle),
            _ => {
                handle.retire();
                Err(ResolveError::Behind(handle.tenant().clone()))
            }
        }
    }

    /// `None`: the server has moved since its row was read.
    fn keep(
        &self, name: &TenantRef<'static>, handle: TenantPool, entries: Entries, read: ReadStamp,
    ) -> Result<Option<TenantPool>, ResolveError> {
        let mut state = self.0.state();
        if self.0.stop.is_cancelled() {
            return Err(ResolveError::Closed);
        }
        if !state.cache.is_current(&entries) {
            drop(state);
            handle.retire();
            return Ok(None);
        }
        let (handle, retired) = state.cache.keep(name, handle, entries, read);
        drop(state);
        self.0.retire(retired);
        Ok(Some(handle))
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
