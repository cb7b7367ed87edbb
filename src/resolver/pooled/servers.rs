//! The registry's server rows, as this process last read them.
//!
//! Each load of a tenant reads the row of its server; [`PooledResolver::check_servers`] reads all rows again after a
//! gap in the notifications. Invariant: when a row has a new address, every handle to the old address is retired,
//! including those of tenants that are not being resolved.
use super::cache::{Cache, Entries, ReadStamp};
use super::{PooledResolver, Shared, TenantPool};
use crate::directory::TenantDatabase;
use crate::error::{ResolveError, UntrustedAddress};
use crate::names::ServerName;
use crate::server::{DatabaseServer, TlsMode};
use crate::tenant::Tenant;
use std::time::Instant;

impl PooledResolver {
    /// Reads the row of each known server again, after notifications of changes may have been lost. A row that cannot
    /// be read is logged and skipped.
    pub(crate) async fn check_servers(&self) {
        let names: Vec<ServerName> = self.0.lock_state().cache.rows.keys().cloned().collect();
        for name in names {
            if let Err(error) = self.0.read_row(&name).await {
                tracing::debug!(server = %name, %error, "could not read a server's row; its last address stays in use");
            }
        }
    }
}

impl Shared {
    /// Reads the row of the server that the entry names; `None` if the entry names no server.
    ///
    /// # Errors
    /// [`ResolveError::UnknownServer`] if the row is missing or the resolver has no server registry.
    pub(super) async fn find_row(
        &self, tenant: &Tenant, entry: &TenantDatabase,
    ) -> Result<Option<DatabaseServer>, ResolveError> {
        let Some(name) = &entry.server else { return Ok(None) };
        let unknown = || ResolveError::UnknownServer { tenant: tenant.clone(), server: name.clone() };
        self.read_row(name).await?.ok_or_else(unknown).map(Some)
    }

    /// Checks the address of an entry that is connected to where the entry itself says.
    pub(super) fn check_own_address(&self, entry: &TenantDatabase) -> Result<(), UntrustedAddress> {
        let tls = entry.settings.tls.unwrap_or_else(|| TlsMode::default_for(&entry.host));
        self.settings.policy.check(&entry.host, tls)
    }

    async fn read_row(&self, name: &ServerName) -> Result<Option<DatabaseServer>, ResolveError> {
        let Some(registry) = &self.server_registry else { return Ok(None) };
        // The stamp must be taken before the read: a row must never count as newer than it is.
        let read = self.lock_state().cache.stamp(Instant::now());
        let Some(load) = registry.server(name).await? else { return Ok(None) };
        let displaced = self.lock_state().cache.store_row(load.server.clone(), read);
        self.retire(displaced);
        let (address, total) = ((load.server.host.clone(), load.server.port), load.server.max_connections);
        if self.connection_limits.set_row(&address, total) {
            self.resize_servers();
        }
        Ok(Some(load.server))
    }
}

impl Cache {
    /// Stores the row unless a newer read is stored. If the address has changed, removes every handle to the old
    /// address and returns those handles; the caller must retire them.
    fn store_row(&mut self, row: DatabaseServer, read: ReadStamp) -> Vec<TenantPool> {
        if self.rows.get(&row.name).is_some_and(|(newer, _)| *newer > read) {
            return vec![];
        }
        let moved = self.rows.get(&row.name).is_some_and(|(_, known)| !same_address(known, &row));
        let name = row.name.clone();
        self.rows.insert(name.clone(), (read, row));
        if !moved {
            return vec![];
        }
        let displaced =
            self.tenants_where(|entries| entries.primary.server.as_ref() == Some(&name) && !self.is_current(entries));
        displaced.into_iter().filter_map(|tenant| self.forget(tenant)).collect()
    }

    /// Whether the entries have the address of their server's newest row.
    pub(super) fn is_current(&self, entries: &Entries) -> bool {
        let row = entries.primary.server.as_ref().and_then(|name| self.rows.get(name));
        row.is_none_or(|(_, row)| row.locate(entries.primary.clone()) == entries.primary)
    }
}

fn same_address(a: &DatabaseServer, b: &DatabaseServer) -> bool {
    (&a.host, a.port, a.tls, &a.root_certificate) == (&b.host, b.port, b.tls, &b.root_certificate)
}
