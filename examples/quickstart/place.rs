//! The server and the landlord database of the tour, and how they go again.
use crate::Anything;
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{ConnectOptions, Executor};
use tenantry::testing::TestServer;
use tenantry::testing::server::{EXAMPLE_DATABASE_URL, ServerKind, TestDatabase};

/// Names of its own, so that an installation that is there already is left alone.
pub(crate) const PREFIX: &str = "tenantry_quickstart";

pub(crate) struct Place {
    server: TestServer,
    database: TestDatabase,
}

impl Place {
    pub(crate) async fn find() -> Result<Self, Anything> {
        let server = TestServer::builder().url_variable(EXAMPLE_DATABASE_URL).start().await?;
        let database = server.create_database("tenantry_quickstart").await?;
        Ok(Self { server, database })
    }
    pub(crate) fn describe(&self) -> String {
        self.server.describe()
    }
    pub(crate) fn admin(&self) -> PgConnectOptions {
        self.server.admin_options()
    }
    pub(crate) async fn landlord(&self) -> Result<PgPool, Anything> {
        Ok(PgPool::connect_with(self.database.options()).await?)
    }

    pub(crate) fn keep(self) {
        let options = self.admin();
        println!("\nKept. Connect to the landlord as the server's admin:");
        let (user, database) = (options.get_username(), self.database.name());
        println!("  psql -h {} -p {} -U {user} {database}", options.get_host(), options.get_port());
        if !matches!(self.server.kind(), ServerKind::Url { .. }) {
            println!("The server ends with this process: press Enter to end it.");
            let _ = std::io::stdin().read_line(&mut String::new());
        }
    }

    /// A server of its own goes as a whole; on somebody's server each thing that the tour made.
    pub(crate) async fn remove(self) -> Result<(), Anything> {
        if !matches!(self.server.kind(), ServerKind::Url { .. }) {
            self.server.stop().await?;
            println!("\nThe throwaway server is stopped and removed.");
            return Ok(());
        }
        let mut admin = self.admin().connect().await?;
        self.server.drop_database(self.database).await?;
        admin.execute("DROP DATABASE IF EXISTS tenantry_quickstart_maintenance").await?;
        const ROLES: &str = "DROP ROLE IF EXISTS \
            tenantry_quickstart_blue, tenantry_quickstart_green, tenantry_quickstart_admin";
        admin.execute(ROLES).await?;
        println!("\nRemoved: the landlord database, the maintenance database, three roles, and every tenant.");
        Ok(())
    }
}
