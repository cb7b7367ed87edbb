//! Finding the address behind a directory entry, for code that connects as the application: the password link and the
//! status of migrations. For an entry that names a server, the address is always read from the server's row in the
//! registry.
use super::OperationContext;
use crate::directory::TenantDatabase;
use crate::error::{StoreError, UnknownServer};
use crate::server::TlsMode;

impl OperationContext {
    /// Returns the entry with the address in its server's row. An entry that names no server keeps its own address.
    ///
    /// # Errors
    /// The outer error is the store's, or says that the address is not trusted. The inner one says that the entry names a server that is not registered.
    pub(crate) async fn locate(
        &self, entry: TenantDatabase,
    ) -> Result<Result<TenantDatabase, UnknownServer>, StoreError> {
        let Some(name) = &entry.server else {
            let tls = entry.settings.tls.unwrap_or_else(|| TlsMode::default_for(&entry.host));
            self.verified.policy().check(&entry.host, tls).map_err(StoreError::Untrusted)?;
            return Ok(Ok(entry));
        };
        Ok(match self.servers.server(name).await? {
            Some(load) => Ok(load.server.locate(entry)),
            None => Err(UnknownServer::new(entry.tenant, name.clone())),
        })
    }
}
