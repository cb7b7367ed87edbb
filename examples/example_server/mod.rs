//! The database server and the landlord database of an example, and their removal.
//!
//! The examples call [`ExampleServer::find`] first, and [`ExampleServer::remove`] or [`ExampleServer::keep`] at the
//! end. All names have the prefix of the example, so another installation on the same server is not touched.
use super::AnyError;
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{ConnectOptions, Executor};
use tenantry::testing::TestServer;
use tenantry::testing::server::{EXAMPLE_DATABASE_URL, ServerKind, TestDatabase};

pub(crate) mod exit;

#[allow(dead_code, reason = "only the quickstart has --keep")]
/// Superuser role that `--keep` creates on a throwaway server, for the person that runs the example.
const VIEWER: &str = "quickstart";

/// A server for an example, with an empty landlord database.
pub(crate) struct ExampleServer {
    prefix: &'static str,
    server: TestServer,
    database: TestDatabase,
}

impl ExampleServer {
    /// Uses the server at `TENANTRY_DATABASE_URL`, or starts a throwaway server, and creates the landlord database
    /// there. `prefix` begins the names of everything that the example creates.
    pub(crate) async fn find(prefix: &'static str) -> Result<Self, AnyError> {
        let server = TestServer::builder().url_variable(EXAMPLE_DATABASE_URL).start().await?;
        let database = server.create_database(prefix).await?;
        Ok(Self { prefix, server, database })
    }
    pub(crate) fn prefix(&self) -> &'static str {
        self.prefix
    }
    pub(crate) fn describe(&self) -> String {
        self.server.describe()
    }
    pub(crate) fn admin(&self) -> PgConnectOptions {
        self.server.admin_options()
    }
    pub(crate) async fn landlord(&self) -> Result<PgPool, AnyError> {
        Ok(tenantry::schema::pool_options().connect_with(self.database.options()).await?)
    }

    /// Keeps everything and prints how to connect. A throwaway server runs until Enter is pressed.
    #[allow(dead_code, reason = "only the quickstart has --keep")]
    pub(crate) async fn keep(self) -> Result<(), AnyError> {
        let options = self.admin();
        let (host, port, database) = (options.get_host(), options.get_port(), self.database.name());
        println!("\nEverything was kept. Connect to the landlord as the server admin:");
        if let ServerKind::Url { .. } = self.server.kind() {
            println!("  psql -h {host} -p {port} -U {} {database}", options.get_username());
            return Ok(());
        }
        let file = self.password_file(host, port).await?;
        println!("  PGPASSFILE={} psql -h {host} -p {port} -U {VIEWER} {database}", file.path().display());
        println!("The server runs as long as this process. Press Enter to stop both.");
        std::io::stdin().read_line(&mut String::new())?;
        self.server.stop().await?;
        Ok(())
    }

    /// Creates the superuser [`VIEWER`] and writes its password to a file that only the current user can read. Dropping
    /// the result deletes the file.
    #[allow(dead_code, reason = "only the quickstart has --keep")]
    async fn password_file(&self, host: &str, port: u16) -> Result<tempfile::NamedTempFile, AnyError> {
        let password = data_encoding::HEXLOWER.encode(&rand::random::<[u8; 16]>());
        let mut admin = self.admin().connect().await?;
        #[expect(clippy::disallowed_methods, reason = "the password is hexadecimal, and the rest is fixed")]
        let role = sqlx::AssertSqlSafe(format!("CREATE ROLE {VIEWER} SUPERUSER LOGIN PASSWORD '{password}'"));
        admin.execute(role).await?;
        let file = tempfile::Builder::new().prefix("tenantry-quickstart-").tempfile()?;
        std::fs::write(file.path(), format!("{host}:{port}:*:{VIEWER}:{password}\n"))?;
        Ok(file)
    }

    /// Stops a throwaway server. On the server at `TENANTRY_DATABASE_URL`, drops the landlord, the maintenance database
    /// and the roles; the caller has purged the tenants.
    pub(crate) async fn remove(self) -> Result<(), AnyError> {
        if !matches!(self.server.kind(), ServerKind::Url { .. }) {
            self.server.stop().await?;
            println!("\nThe throwaway server is stopped and removed.");
            return Ok(());
        }
        let mut admin = self.admin().connect().await?;
        self.server.drop_database(self.database).await?;
        let name = self.prefix;
        let statements = [
            format!("DROP DATABASE IF EXISTS {name}_maintenance"),
            format!("DROP ROLE IF EXISTS {name}_blue, {name}_green, {name}_admin"),
        ];
        for statement in statements {
            #[expect(clippy::disallowed_methods, reason = "the prefix is a constant of the example")]
            admin.execute(sqlx::AssertSqlSafe(statement)).await?;
        }
        println!("\nRemoved: the landlord database, the maintenance database, three roles, and every tenant.");
        Ok(())
    }
}
