//! Begins rotations of the provisioner's passwords and reads their results. The facade makes a [`RotateServer`].
use super::Request;
use super::saga::KIND;
use crate::cluster::require_done;
use crate::error::{BeginError, ChangeError};
use crate::names::ServerName;
use crate::operation::{OperationId, Subject};
use crate::operations::servers::{Server, Servers};
use crate::operations::verb::CallVerb;
use crate::saga::{CallOptions, Outcome, Started};
use crate::store::registry::ServerLoad;
use async_trait::async_trait;

/// Type parameter of `Call` for [`rotate_server`](crate::Tenantry::rotate_server); not used directly.
pub struct RotateServer(String);
impl RotateServer {
    pub(crate) fn new(server: String) -> Self {
        Self(server)
    }
}

#[async_trait]
impl CallVerb for RotateServer {
    type Driver = Servers;
    type Answer = Server;
    type Error = ChangeError;
    async fn begin(self, driver: &Servers, options: &CallOptions) -> Result<Started, ChangeError> {
        let unknown = || ChangeError::UnknownServer { server: self.0.clone() };
        let invalid = |source| ChangeError::Invalid { field: "server", source };
        let server: ServerName = self.0.parse().map_err(invalid)?;
        let ServerLoad { server, .. } = driver.stores.servers.server(&server).await?.ok_or_else(unknown)?;
        let (from, idle, other) = (server.secret_version, server.idle_login().clone(), server.login.clone());
        let subject = Subject::Server(server.name.clone());
        let request = Request { server: server.name, from, idle, other };
        let intent = driver.engine.intent(&driver.rotation, subject.clone(), &request, options)?;
        match driver.engine.begin(&driver.rotation, &intent, async { Ok(()) }).await {
            // A repetition of the call builds another request than the first one if the versions have changed
            // meanwhile. It is still the same call if the stored operation rotates the same server.
            Err(BeginError::KeyReused { operation }) => driver.join_same_server(operation, &subject).await,
            begun => Ok(begun?),
        }
    }
    async fn answer(driver: &Servers, outcome: Outcome) -> Result<Server, ChangeError> {
        let record = require_done(outcome)?;
        let Subject::Server(name) = &record.subject else { return Err(ChangeError::Unknown) };
        let unknown = || ChangeError::UnknownServer { server: name.to_string() };
        Ok(driver.stores.servers.server(name).await?.ok_or_else(unknown)?.into())
    }
}

impl Servers {
    async fn join_same_server(&self, operation: OperationId, subject: &Subject) -> Result<Started, ChangeError> {
        match self.stores.journal.read(operation).await? {
            Some(record) if record.kind == KIND && record.subject == *subject => Ok(Started::Joined(Box::new(record))),
            _ => Err(ChangeError::KeyReused { operation }),
        }
    }
}
