use super::TestServer;
use super::server::{DatabaseError, NoServer, TestDatabase};
use crate::error::{BuildError, SchemaError, ServerSetupError};
use crate::facade::{Builder, Tenantry};
use crate::store::vault::LocalKeyring;
use sqlx::postgres::PgPool;
use std::{fmt, time::Duration};

/// A landlord of its own on the process's one server, and names of its own for what `set_up` makes there: tests that
/// run side by side know nothing of each other.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use tenantry::testing::Harness;
///
/// let harness = Harness::start().await?;
/// let tenantry = harness.tenantry(|builder| builder.lease(std::time::Duration::from_secs(1))).await?;
/// tenantry.provision("acme").await?;
/// # Ok(()) }
/// ```
pub struct Harness {
    server: &'static TestServer,
    database: TestDatabase,
    landlord: PgPool,
    keys: LocalKeyring,
}

/// Why there is no harness.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HarnessError {
    /// No server.
    #[error(transparent)]
    Server(&'static NoServer),
    /// No landlord database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// No schema in it.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// No facade over it.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// No tenant server.
    #[error(transparent)]
    ServerSetup(#[from] Box<ServerSetupError>),
}

impl Harness {
    /// A landlord with its schema, on [`TestServer::shared`].
    pub async fn start() -> Result<Self, HarnessError> {
        Self::on(TestServer::shared().await.map_err(HarnessError::Server)?).await
    }
    /// The same on a server with settings of its own, which lives as long as the process.
    pub async fn on(server: &'static TestServer) -> Result<Self, HarnessError> {
        let database = server.create_database("landlord").await?;
        let pool = crate::store::schema::pool_options().max_connections(10).acquire_timeout(Duration::from_secs(30));
        let landlord = pool.connect_lazy_with(database.options());
        crate::store::schema::install(&landlord).await?;
        Ok(Self { server, database, landlord, keys: LocalKeyring::random() })
    }
    /// A node: the facade that `configure` describes (production's own function, best), with throwaway keys and with
    /// the server `main` set up. Call it twice for two nodes of one application.
    pub async fn tenantry(&self, configure: impl FnOnce(Builder) -> Builder) -> Result<Tenantry, HarnessError> {
        self.tenantry_on(self.server, configure).await
    }
    /// The same with its tenants on another server, which becomes `main`; the landlord stays where it is.
    pub async fn tenantry_on(
        &self, server: &TestServer, configure: impl FnOnce(Builder) -> Builder,
    ) -> Result<Tenantry, HarnessError> {
        let builder = Tenantry::builder(self.landlord.clone()).keys(self.keys.clone());
        let tenantry = configure(builder).build().await?;
        let set_up = tenantry.servers().set_up("main", server.admin_options()).prefix(self.prefix());
        set_up.await.map_err(Box::new)?;
        Ok(tenantry)
    }
    /// What the names of block (a) begin with.
    pub fn prefix(&self) -> &str {
        self.database.name()
    }
    /// The landlord's pool.
    pub fn landlord(&self) -> &PgPool {
        &self.landlord
    }
    /// The keys of every node.
    pub fn keys(&self) -> &LocalKeyring {
        &self.keys
    }
    /// The server.
    pub fn server(&self) -> &'static TestServer {
        self.server
    }
}
impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness").field("landlord", &self.database.name()).finish_non_exhaustive()
    }
}
