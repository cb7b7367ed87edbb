//! A landlord and a tenant server for one test.
//!
//! A test starts a [`Harness`] and builds one [`Tenantry`] for each node that it needs. All harnesses of a process
//! share one PostgreSQL server. Each has a landlord database and a name prefix of its own, so tests can run
//! concurrently.
use super::TestServer;
use super::server::{DatabaseError, NoServer, TestDatabase};
use crate::error::{BuildError, SchemaError, ServerSetupError, StoreError};
use crate::facade::{Builder, Tenantry};
use crate::store::vault::LocalKeyring;
use sqlx::postgres::PgPool;
use std::{fmt, time::Duration};

/// A landlord database on a [`TestServer`], with random keys and a prefix for the names that `set_up` creates on the
/// server. Two harnesses share nothing but the server.
///
/// Dropping it leaves the landlord and the tenants' databases in place. They are removed with the server.
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

/// The error for a [`Harness`], or a [`Tenantry`] on it, that could not be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HarnessError {
    /// No PostgreSQL server was found or started.
    #[error(transparent)]
    Server(&'static NoServer),
    /// The landlord database could not be created.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The schema could not be installed in the landlord.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The facade could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The tenant server `main` could not be set up.
    #[error(transparent)]
    ServerSetup(#[from] Box<ServerSetupError>),
}

impl Harness {
    /// Creates a landlord database with the schema, on [`TestServer::shared`].
    pub async fn start() -> Result<Self, HarnessError> {
        Self::on(TestServer::shared().await.map_err(HarnessError::Server)?).await
    }
    /// As [`start`](Self::start), on another server. Use it for a server with special settings.
    pub async fn on(server: &'static TestServer) -> Result<Self, HarnessError> {
        let database = server.create_database("landlord").await?;
        let pool = crate::store::schema::pool_options().max_connections(10).acquire_timeout(Duration::from_secs(30));
        let landlord = pool.connect_lazy_with(database.options());
        crate::store::schema::install(&landlord).await?;
        Ok(Self { server, database, landlord, keys: LocalKeyring::random() })
    }
    /// Builds a node: a facade with this landlord and these keys, and with the server `main` set up. `configure` adds
    /// the application's settings; pass the function that production uses. Call this twice for two nodes of one
    /// application.
    pub async fn tenantry(&self, configure: impl FnOnce(Builder) -> Builder) -> Result<Tenantry, HarnessError> {
        self.tenantry_on(self.server, configure).await
    }
    /// As [`tenantry`](Self::tenantry), with another server as `main`. The landlord stays on the harness's server.
    pub async fn tenantry_on(
        &self, server: &TestServer, configure: impl FnOnce(Builder) -> Builder,
    ) -> Result<Tenantry, HarnessError> {
        let builder = configure(Tenantry::builder(self.landlord.clone())).default_keys(&self.keys);
        let tenantry = builder.build().await?;
        let set_up = tenantry.servers().set_up("main", server.admin_options()).prefix(self.prefix());
        set_up.await.map_err(Box::new)?;
        Ok(tenantry)
    }
    /// Authenticates the addresses of all servers as they are in the landlord now, for a test that has changed one by
    /// SQL. Without it the changed server is refused. `node` must have the keys of this harness.
    #[doc(hidden)]
    pub async fn sign_servers(&self, node: &Tenantry) -> Result<(), StoreError> {
        node.operation_context().verified.sign_as_stored().await
    }
    /// Prefix of the roles and the database that `set_up` creates on the tenant server. It is the name of the landlord
    /// database.
    pub fn prefix(&self) -> &str {
        self.database.name()
    }
    /// Pool to the landlord, with at most 10 connections.
    pub fn landlord(&self) -> &PgPool {
        &self.landlord
    }
    /// The random keys that all nodes of this harness use.
    pub fn keys(&self) -> &LocalKeyring {
        &self.keys
    }
    /// The server of the landlord.
    pub fn server(&self) -> &'static TestServer {
        self.server
    }
}
impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness").field("landlord", &self.database.name()).finish_non_exhaustive()
    }
}
