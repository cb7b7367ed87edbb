//! Loads a tenant that is not cached: reads the registry, opens the credential in the vault, and joins the server
//! pools.
//!
//! `flight` runs one load per name at a time. A load opens no connection. It fails closed: a tenant that is not
//! active or has no usable entry gets an error, and a handle that is cached for it is removed.
use super::cache::{Entries, ReadStamp};
use super::{PooledResolver, Shared};
use crate::directory::{DatabaseKind, Driver, TenantDatabase};
use crate::error::{ResolveError, VaultError};
use crate::names::{Domain, Slug};
use crate::pool::budget::TenantShare;
use crate::pool::{Budgeted, Renewal, Replica};
use crate::pool::{TenantPool, connect};
use crate::tenant::{Tenant, TenantRef, TenantStatus};
use std::sync::{Arc, Weak};

impl PooledResolver {
    /// Loads the tenant and stores the result. `read` must have been stamped before the call.
    pub(super) async fn load(&self, name: &TenantRef<'static>, read: ReadStamp) -> Result<TenantPool, ResolveError> {
        check_syntax(name)?;
        let tenant = self.find_active(name, read).await?;
        loop {
            let (handle, entries) = self.find_or_build_handle(&tenant).await?;
            if let Some(kept) = self.keep(name, handle, entries, read)? {
                return Ok(kept);
            }
        }
    }

    /// Returns the cached handle if the tenant's entries have not changed, else builds one.
    ///
    /// A rotation that ends after the entries were read deletes the secret that they name. So if the vault has no
    /// secret, the entries are read again, and the loop continues while they name another secret each time.
    async fn find_or_build_handle(&self, tenant: &Tenant) -> Result<(TenantPool, Entries), ResolveError> {
        let mut entries = self.read_entries(tenant).await?;
        loop {
            let cached = self.0.lock_state().cache.handle_for(&entries).cloned();
            if let Some(handle) = cached {
                return Ok((handle.for_tenant(tenant), entries));
            }
            match self.build_handle(tenant.clone(), &entries).await {
                Ok(handle) => return Ok((handle, entries)),
                Err(error @ ResolveError::Credential(VaultError::Missing(_))) => {
                    let newer = self.read_entries(tenant).await?;
                    if newer.primary.credential == entries.primary.credential {
                        return Err(error);
                    }
                    entries = newer;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Finds the tenant in the registry. If it is not active or does not exist, removes and retires its cached handle.
    async fn find_active(&self, name: &TenantRef<'static>, read: ReadStamp) -> Result<Tenant, ResolveError> {
        let found = self.0.registry.find(name.clone()).await?;
        let refusal = match &found {
            Some(tenant) if tenant.status() == TenantStatus::Active => return Ok(tenant.clone()),
            Some(tenant) => status_error(tenant),
            None => {
                self.0.lock_state().cache.keep_unknown(name.clone(), read);
                ResolveError::Unknown
            }
        };
        // Connections in use stay open until they are returned. Ending them is the task of suspend, archive and purge,
        // which terminate the sessions on the server.
        let inactive = found.map(|tenant| tenant.id()).or(match name {
            TenantRef::Id(id) => Some(*id),
            _ => None,
        });
        let handle = inactive.and_then(|id| self.0.lock_state().cache.forget(id));
        self.0.retire(handle);
        Err(refusal)
    }

    /// Reads the tenant's primary entry and its first standby, and gives both the address of their server's row.
    async fn read_entries(&self, tenant: &Tenant) -> Result<Entries, ResolveError> {
        let mut entries = self.0.registry.databases(tenant.id()).await?;
        let primary = entries.iter().position(|entry| entry.kind == DatabaseKind::Primary);
        let primary = entries.swap_remove(primary.ok_or_else(|| ResolveError::NoEntry(tenant.clone()))?);
        if primary.driver != Driver::Postgres {
            return Err(ResolveError::NotBuilt { tenant: tenant.clone(), driver: primary.driver });
        }
        let row = self.0.find_row(tenant, &primary).await?;
        if row.is_none() {
            self.0.check_own_address(&primary)?;
        }
        // A standby that was promoted keeps its replica entry until the application removes it. It is the primary now,
        // so reads must not go to it as to a standby.
        let is_promoted = |entry: &TenantDatabase| row.as_ref().is_some_and(|row| row.is_at(&entry.host, entry.port));
        let is_standby = |entry: &TenantDatabase| entry.is_standby_of(&primary.database) && !is_promoted(entry);
        let standbys = entries.into_iter().filter(is_standby);
        let locate = |entry: TenantDatabase| row.as_ref().map(|row| row.locate(entry.clone())).unwrap_or(entry);
        let (primary, standbys) = (locate(primary.clone()), standbys.map(locate));
        // A standby that is not trusted must not shut the tenant out: its reads go to the primary.
        let standbys = standbys.filter(|entry| match self.0.check_own_address(entry) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(tenant = %entry.tenant, host = entry.host, %error, "a standby is not used");
                false
            }
        });
        let first = standbys.min_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
        // Only the address and the session settings come from the replica's entry. Database, login and credential are
        // those of the primary, since a physical standby has the same.
        let replica = first
            .map(|e| Box::new(TenantDatabase { host: e.host, port: e.port, settings: e.settings, ..primary.clone() }));
        Ok(Entries { primary, replica })
    }

    /// Opens the credential and joins the server pools. Opens no connection.
    async fn build_handle(&self, tenant: Tenant, entries: &Entries) -> Result<TenantPool, ResolveError> {
        let password = self.0.vault.open(&entries.primary.credential).await?;
        let settings = &self.0.settings;
        let join_server = |entry: &TenantDatabase| {
            let server = self.0.get_or_create_server(&entry.host, entry.port)?;
            let options = connect::connect_options(entry, &password);
            Ok::<_, ResolveError>(TenantShare::new(tenant.id(), server, settings.max_connections_per_tenant, options))
        };
        let primary = Arc::new(join_server(&entries.primary)?);
        let replica = entries.replica.as_deref().map(join_server).transpose()?;
        let replica = replica.map(|share| Arc::new(Replica::new(share)));
        let from: Weak<Shared> = Arc::downgrade(&self.0);
        let renewal = Renewal { from, limit: settings.acquire_timeout };
        Ok(TenantPool::from_budget(tenant, Budgeted { primary, replica, renewal }))
    }

    /// Stores the handle in the cache. `None`: the server's address has changed since its row was read; load again.
    fn keep(
        &self, name: &TenantRef<'static>, handle: TenantPool, entries: Entries, read: ReadStamp,
    ) -> Result<Option<TenantPool>, ResolveError> {
        let mut state = self.0.lock_state();
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

/// Checks the name's syntax before the registry is read, so that garbage in a `Host` header costs no query.
fn check_syntax(name: &TenantRef<'_>) -> Result<(), ResolveError> {
    match name {
        TenantRef::Id(_) => {}
        TenantRef::Slug(text) => drop(text.parse::<Slug>()?),
        TenantRef::Domain(text) => drop(text.parse::<Domain>()?),
    }
    Ok(())
}

/// The error for a tenant that is not active. A tenant that is being purged is reported as unknown.
fn status_error(tenant: &Tenant) -> ResolveError {
    match tenant.status() {
        TenantStatus::Provisioning => ResolveError::Provisioning(tenant.clone()),
        TenantStatus::Suspended => ResolveError::Suspended(tenant.clone()),
        TenantStatus::Archived => ResolveError::Archived(tenant.clone()),
        TenantStatus::Active | TenantStatus::Purging | TenantStatus::Deleted => ResolveError::Unknown,
    }
}
