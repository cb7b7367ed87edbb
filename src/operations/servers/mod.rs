//! The PostgreSQL servers that hold tenants: set up, listed, drained, relocated, removed.
//!
//! [`Servers`] is what the facade's `servers()` returns. Set-up, relocation and the rotation of the provisioner's
//! passwords are operations in the journal. Drain and the list of allowed roles are single writes to the server's row,
//! by compare-and-set. Every connection to a server uses the address in its row.
use crate::cluster::OperationContext;
use crate::error::{EXCERPT, Rows, ServerSetupError, StoreError, shorten};
use crate::names::{InvalidName, ServerName};
use crate::operation::{FencingToken, OperationId};
use crate::saga::{AnySaga, Engine, Saga};
use crate::secret::CredentialId;
use crate::server::{DatabaseServer, ServerNames, TlsMode};
use crate::store::registry::ServerLoad;
use crate::store::schema::LandlordPool;
use futures_core::future::BoxFuture;
use serde::Serialize;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use std::{fmt, sync::Arc};

mod address;
mod allow;
mod limits;
mod relocate;
mod rotate;
mod set_up;
pub use limits::LimitReport;
pub use relocate::{Relocate, Relocated};
#[doc(hidden)]
pub use rotate::RotateServer;
pub use set_up::ServerSetup;

/// A registered server, as [`Servers::list`] shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Server {
    /// Name that the application has given to the server.
    pub name: ServerName,
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Tenants placed on the server, including those that are being provisioned.
    pub tenants: u32,
    /// Maximum number of tenants.
    pub capacity: u32,
    /// Whether the server's set-up is complete. Only a ready server gets tenants.
    pub ready: bool,
    /// Whether the server takes no new tenants, because of [`Servers::drain`].
    pub draining: bool,
    /// Maximum connections of tenants to the server, over all nodes.
    pub max_connections: u32,
    /// Weight for placement. A server of weight 2 gets twice as many tenants as one of weight 1.
    pub weight: u32,
    /// How connections are encrypted.
    pub tls: TlsMode,
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
            max_connections: server.max_connections,
            weight: server.weight,
            tls: server.tls,
        }
    }
}

/// A server that was set up, and what could not be done on it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ServerSetupReport {
    /// The server, which is ready.
    pub server: Server,
    /// What could not be closed, granted or limited, and a locale of the cluster that does not fit UTF8. Each line names
    /// the reason and the consequence.
    pub left_open: Vec<String>,
}

/// Manages the servers that are registered in one landlord. Cheap to clone.
#[derive(Clone)]
pub struct Servers {
    stores: OperationContext,
    engine: Engine,
    landlord: LandlordPool,
    rotation: Arc<Saga<rotate::RotateServerContext>>,
    connection_limit: Option<i32>,
    accepts_pg_environment: bool,
    relocation: Arc<Saga<relocate::RelocateContext>>,
    with_move_callback: Option<OnMove>,
}

/// Callback that this process runs after it has relocated a server.
type OnMove = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

impl Servers {
    /// Creates the handle over these stores. `landlord` is the pool of the landlord's database. If that database is on
    /// a server that is set up, the set-up closes it to PUBLIC but not to this pool's role.
    pub fn new(stores: OperationContext, engine: Engine, landlord: PgPool) -> Self {
        Self::over(stores, engine, LandlordPool::new(landlord))
    }
    pub(crate) fn over(stores: OperationContext, engine: Engine, landlord: LandlordPool) -> Self {
        let rotation = Arc::new(rotate::define(stores.clone()));
        let relocation = Arc::new(relocate::define(stores.clone()));
        let (with_move_callback, connection_limit, accepts_pg_environment) = (None, None, false);
        Self {
            stores,
            engine,
            landlord,
            rotation,
            connection_limit,
            accepts_pg_environment,
            relocation,
            with_move_callback,
        }
    }
    /// Lets `set_up` connect although a `PG*` variable changes its connections.
    pub(crate) fn accepting_pg_environment(self) -> Self {
        Self { accepts_pg_environment: true, ..self }
    }
    /// Runs `moved` after each relocation by this process, so that its resolver need not wait for the landlord's
    /// notification.
    pub(crate) fn with_move_callback(self, moved: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Self { with_move_callback: Some(Arc::new(moved)), ..self }
    }

    /// Creates the admin role, the provisioner's two logins and the maintenance database on a server. `admin` connects
    /// as the server admin: a superuser, or a managed service's admin login with CREATEDB and CREATEROLE. It is not
    /// stored. Its host and port become the server's address unless [`ServerSetup::address`] sets another one.
    ///
    /// The call may be repeated, also after a crash. A repetition changes the settings that it names. It does not
    /// change the address of a server that is ready; use [`relocate`](Self::relocate) for that.
    pub fn set_up(&self, name: impl Into<String>, admin: PgConnectOptions) -> ServerSetup {
        ServerSetup::new(self.clone(), name.into(), admin)
    }
    /// The saga that rotates the provisioner's passwords, for a `Recoverer`.
    #[doc(hidden)]
    pub fn saga(&self) -> Arc<dyn AnySaga> {
        self.rotation.clone()
    }
    /// All servers, ordered by name. A server whose row cannot be parsed is in [`Rows::unreadable`].
    pub async fn list(&self) -> Result<Rows<Server>, StoreError> {
        Ok(self.stores.servers.servers().await?.map(Server::from))
    }
    /// Stops placing new tenants on the server. Its tenants stay.
    ///
    /// # Errors
    /// [`ServerSetupError::Unknown`] if no server has this name.
    pub async fn drain(&self, name: &str) -> Result<(), ServerSetupError> {
        self.change(name, |server| server.draining = true).await
    }
    /// Reverses [`drain`](Self::drain): the server takes new tenants again.
    ///
    /// # Errors
    /// [`ServerSetupError::Unknown`] if no server has this name.
    pub async fn undrain(&self, name: &str) -> Result<(), ServerSetupError> {
        self.change(name, |server| server.draining = false).await
    }
    /// Removes the row of a server that has no tenants, and the stored passwords of the provisioner's logins. The roles
    /// and the database that `set_up` created on the server stay; the server admin may drop them.
    ///
    /// # Errors
    /// [`ServerSetupError::Unknown`] if no server has this name, [`ServerSetupError::InUse`] while tenants are placed
    /// on it.
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

    /// Deletes the passwords of the provisioner's logins. The vault requires a fencing token, so this call uses the id
    /// of a new operation, which no other writer has.
    async fn forget_secrets(&self, server: &DatabaseServer) -> Result<(), ServerSetupError> {
        let (vault, by) = (&self.stores.vault, FencingToken { operation: OperationId::new(), epoch: 1 });
        vault.fence(by.operation, by.epoch).await.map_err(StoreError::from)?;
        for role in [&server.names.blue, &server.names.green] {
            let id = CredentialId::provisioner(&server.name, role, server.secret_version);
            vault.forget(&id, by).await.map_err(StoreError::from)?;
        }
        Ok(())
    }

    async fn find(&self, name: &str) -> Result<ServerLoad, ServerSetupError> {
        let server = server_name(name)?;
        self.stores.servers.server(&server).await?.ok_or(ServerSetupError::Unknown { server })
    }

    /// Changes the server's row by compare-and-set. After a conflict it reads the row again, so that a concurrent
    /// change is kept. It fails after five conflicts.
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
        Err(StoreError::contended("the server's row was changed concurrently five times").into())
    }
}

fn server_name(name: &str) -> Result<ServerName, ServerSetupError> {
    name.parse().map_err(invalid("server", name))
}

/// Shown by an error instead of a certificate. A private key may have been given by mistake.
const HIDDEN: &str = "…";

/// The error for a value that breaks a rule.
fn invalid(field: &'static str, value: &str) -> impl FnOnce(InvalidName) -> ServerSetupError {
    let value = shorten(value, EXCERPT);
    move |source| ServerSetupError::Invalid { field, value, source }
}

/// A server with these values, and defaults for all others.
fn new_server(name: &ServerName, host: &str, port: u16, names: ServerNames, tls: Option<TlsMode>) -> DatabaseServer {
    let mut server = DatabaseServer::new(name.clone(), host, port, names);
    server.tls = tls.unwrap_or(server.tls);
    server
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Servers(..)")
    }
}
