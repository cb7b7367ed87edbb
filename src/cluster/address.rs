//! Where an entry leads, for what connects as the application: the password link and the status of migrations.
use super::OperationContext;
use crate::directory::TenantDatabase;
use crate::error::{StoreError, UnknownServer};

impl OperationContext {
    /// The entry as it is reached, at the address of its server's row.
    pub(crate) async fn locate(
        &self, entry: TenantDatabase,
    ) -> Result<Result<TenantDatabase, UnknownServer>, StoreError> {
        let Some(name) = &entry.server else { return Ok(Ok(entry)) };
        Ok(match self.servers.server(name).await? {
            Some(load) => Ok(load.server.locate(entry)),
            None => Err(UnknownServer::new(entry.tenant, name.clone())),
        })
    }
}
