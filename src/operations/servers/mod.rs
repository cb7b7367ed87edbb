//! The PostgreSQL servers that tenants live on: set up, listed, drained, removed.
use crate::cluster::OperationContext;
use crate::error::{ServerSetupError, StoreError};
use crate::names::ServerName;
use crate::operation::{FencingToken, OperationId};
use crate::saga::{AnySaga, Engine};
use crate::secret::CredentialId;
use crate::server::{DatabaseServer, ServerNames, TlsMode};
use crate::store::registry::ServerLoad;
use futures_core::future::BoxFuture;
use serde::Serialize;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use std::{fmt, sync::Arc};

mod address;
mod allow;
mod context;
mod limits;
mod probe;
mod relocate;
mod rotate;
mod saga;
mod set_up;
mod steps;
pub use limits::LimitReport;
pub use relocate::{Relocate, Relocated};
pub use set_up::ServerSetup;

/// A server as a list shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Server {
    /// The host's name for it.
    pub name: ServerName,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Tenants that have a place there, half-made ones included.
    pub tenants: u32,
    /// Most tenants.
    pub capacity: u32,
    /// Whether its set-up has ended.
    pub ready: bool,
    /// Whether it takes no new tenants.
    pub draining: bool,
}
impl From<ServerLoad> for Server {
    fn from(load: ServerLoad) -> Self {
        let ServerLoad { server, tenants, .. } = load;
        Self {
            ready: server.status == crate::server::ServerStatus::Ready,
            name: server.name,
            host: server.host,
            port: server.port,
            tenants,
            capacity: server.capacity,
            draining: server.draining,
        }
    }
}

/// What a set-up did.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ServerSetupReport {
    /// The server.
    pub server: Server,
    /// What could not be closed or granted, each with the reason and what follows from it.
    pub left_open: Vec<String>,
}

/// The servers of one landlord.
#[derive(Clone)]
pub struct Servers {
    stores: OperationContext,
    engine: Engine,
    landlord: PgPool,
    rotation: Arc<rotate::RotateServer>,
    connection_limit: Option<i32>,
    relocation: Arc<probe::RelocateSaga>,
    on_move: Option<OnMove>,
}

/// What this process does when it has relocated a server.
type OnMove = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

impl Servers {
    /// Over these stores; `landlord` is the pool whose database must not be locked to its host by a set-up.
    pub fn new(stores: OperationContext, engine: Engine, landlord: PgPool) -> Self {
        let rotation = Arc::new(rotate::RotateServer::new(stores.clone()));
        let relocation = Arc::new(probe::RelocateSaga::new(stores.clone()));
        Self { stores, engine, landlord, rotation, relocation, on_move: None, connection_limit: None }
    }
    /// This process need not be told of its own relocations by the landlord.
    pub(crate) fn on_move(self, moved: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Self { on_move: Some(Arc::new(moved)), ..self }
    }

    /// Makes the admin role, the provisioner's two logins and the maintenance database on a server, as its admin (a
    /// superuser, or a managed service's admin with CREATEDB and CREATEROLE). May be repeated, also after a crash; a
    /// repetition changes the settings that it names, but not the address: that is [`relocate`](Self::relocate)'s. `admin` is used here and stored nowhere; its host and port are
    /// the server's, unless [`ServerSetup::address`] says otherwise.
    pub fn set_up(&self, name: impl Into<String>, admin: PgConnectOptions) -> ServerSetup {
        ServerSetup::new(self.clone(), name.into(), admin)
    }
    /// The saga that gives the provisioner's logins new passwords, for a [`Recoverer`](crate::saga::Recoverer).
    pub fn saga(&self) -> Arc<dyn AnySaga> {
        self.rotation.clone()
    }
    /// All servers, by name.
    pub async fn list(&self) -> Result<Vec<Server>, StoreError> {
        Ok(self.stores.servers.servers().await?.into_iter().map(Server::from).collect())
    }
    /// From now on it takes no new tenants; the ones it has stay.
    ///
    /// # Errors
    /// `Unknown`.
    pub async fn drain(&self, name: &str) -> Result<(), ServerSetupError> {
        self.change(name, |server| server.draining = true).await
    }
    /// The way back from [`drain`](Self::drain).
    ///
    /// # Errors
    /// `Unknown`.
    pub async fn undrain(&self, name: &str) -> Result<(), ServerSetupError> {
        self.change(name, |server| server.draining = false).await
    }
    /// Forgets a server that has no tenants, and the secrets of its logins. What `set_up` made there stays: its admin
    /// drops it, if he likes.
    ///
    /// # Errors
    /// `Unknown`, or `InUse` while somebody has a place there.
    pub async fn remove(&self, name: &str) -> Result<(), ServerSetupError> {
        let load = self.find(name).await?;
        if load.tenants > 0 {
            return Err(ServerSetupError::InUse { tenants: load.tenants });
        }
        match self.stores.servers.remove_server(&load.server.name, None).await {
            Err(StoreError::Conflict(_)) => Err(ServerSetupError::InUse { tenants: self.find(name).await?.tenants }),
            removed => {
                removed?;
                self.forget_secrets(&load.server).await
            }
        }
    }

    /// By a writer that nobody else is.
    async fn forget_secrets(&self, server: &DatabaseServer) -> Result<(), ServerSetupError> {
        let unavailable = |e| ServerSetupError::Landlord(StoreError::unavailable(e));
        let (vault, by) = (&self.stores.vault, FencingToken { operation: OperationId::new(), epoch: 1 });
        vault.fence(by.operation, by.epoch).await.map_err(unavailable)?;
        for role in [&server.names.blue, &server.names.green] {
            let id = CredentialId::provisioner(&server.name, role, server.secret_version);
            vault.forget(&id, by).await.map_err(unavailable)?;
        }
        Ok(())
    }

    async fn find(&self, name: &str) -> Result<ServerLoad, ServerSetupError> {
        let server = server_name(name)?;
        self.stores.servers.server(&server).await?.ok_or(ServerSetupError::Unknown { server })
    }

    /// By compare-and-set; a change that somebody made in between is looked at and kept.
    async fn change(&self, name: &str, set: impl Fn(&mut DatabaseServer)) -> Result<(), ServerSetupError> {
        for _ in 0..5 {
            let load = self.find(name).await?;
            let mut server = load.server.clone();
            set(&mut server);
            match self.stores.servers.put_server(Some(&load.server), &server, None).await {
                Err(StoreError::Conflict(_)) => {}
                changed => return Ok(changed?),
            }
        }
        Err(StoreError::conflict("the server's row changes all the time").into())
    }
}

fn server_name(name: &str) -> Result<ServerName, ServerSetupError> {
    name.parse().map_err(|source| ServerSetupError::Invalid { field: "server", value: name.into(), source })
}

/// A server as a call describes it, with the defaults of everything that it does not name.
fn described(name: &ServerName, host: &str, port: u16, names: ServerNames, tls: Option<TlsMode>) -> DatabaseServer {
    let mut server = DatabaseServer::new(name.clone(), host, port, names);
    server.tls = tls.unwrap_or(server.tls);
    server
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Servers(..)")
    }
}
