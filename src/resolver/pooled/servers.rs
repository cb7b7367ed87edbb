//! The servers' rows as they were last read. A row with another address retires every handle to the old one, also those of
//! tenants that nobody resolves at this moment.
use super::cache::{Cache, Entries, ReadStamp};
use super::{PooledResolver, Shared, TenantPool};
use crate::directory::TenantDatabase;
use crate::error::ResolveError;
use crate::names::ServerName;
use crate::server::DatabaseServer;
use crate::tenant::Tenant;
use std::time::Instant;

impl PooledResolver {
    /// Reads the row of each server that is connected to: after a gap in the changes that this node was told of.
    pub(crate) async fn check_servers(&self) {
        let known: Vec<ServerName> = self.0.state().cache.rows.keys().cloned().collect();
        for name in known {
            if let Err(error) = self.0.read_row(&name).await {
                tracing::debug!(server = %name, %error, "the row of a server was not read");
            }
        }
    }
}

impl Shared {
    /// The row of the server that the entry names; `None` if the entry names none.
    pub(super) async fn find_row(
        &self, tenant: &Tenant, entry: &TenantDatabase,
    ) -> Result<Option<DatabaseServer>, ResolveError> {
        let Some(name) = &entry.server else { return Ok(None) };
        let unknown = || ResolveError::UnknownServer { tenant: tenant.clone(), server: name.clone() };
        self.read_row(name).await?.ok_or_else(unknown).map(Some)
    }

    async fn read_row(&self, name: &ServerName) -> Result<Option<DatabaseServer>, ResolveError> {
        let Some(registry) = &self.hosts else { return Ok(None) };
        // The ticket is older than what is read with it.
        let read = self.state().cache.stamp(Instant::now());
        let Some(load) = registry.server(name).await? else { return Ok(None) };
        let displaced = self.state().cache.note_row(load.server.clone(), read);
        self.retire(displaced);
        Ok(Some(load.server))
    }
}

impl Cache {
    /// Keeps the row unless a newer read is known, and forgets every handle that leads elsewhere; those are returned, to be
    /// retired.
    fn note_row(&mut self, row: DatabaseServer, read: ReadStamp) -> Vec<TenantPool> {
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
            self.tenants(|entries| entries.primary.server.as_ref() == Some(&name) && !self.is_current(entries));
        displaced.into_iter().filter_map(|tenant| self.forget(tenant)).collect()
    }

    /// Whether the entries lead where their server's newest row says.
    pub(super) fn is_current(&self, entries: &Entries) -> bool {
        let row = entries.primary.server.as_ref().and_then(|name| self.rows.get(name));
        row.is_none_or(|(_, row)| row.locate(entries.primary.clone()) == entries.primary)
    }
}

fn same_address(a: &DatabaseServer, b: &DatabaseServer) -> bool {
    (&a.host, a.port, a.tls, &a.root_certificate) == (&b.host, b.port, b.tls, &b.root_certificate)
}
