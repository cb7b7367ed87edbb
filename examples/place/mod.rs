//! The server and the landlord database of an example, and how they go again.
use super::Anything;
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{ConnectOptions, Executor};
use tenantry::testing::TestServer;
use tenantry::testing::server::{EXAMPLE_DATABASE_URL, ServerKind, TestDatabase};

#[allow(dead_code, reason = "one of the examples keeps nothing")]
/// Who looks at what `--keep` has left on a throwaway server.
const LOOKER: &str = "quickstart";

pub(crate) struct Place {
    prefix: &'static str,
    server: TestServer,
    database: TestDatabase,
}

impl Place {
    /// Under names of its own, so that an installation that is there already is left alone.
    pub(crate) async fn find(prefix: &'static str) -> Result<Self, Anything> {
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
    pub(crate) async fn landlord(&self) -> Result<PgPool, Anything> {
        Ok(tenantry::schema::pool_options().connect_with(self.database.options()).await?)
    }

    /// Leaves everything, and says how to look at it.
    #[allow(dead_code, reason = "one of the examples keeps nothing")]
    pub(crate) async fn keep(self) -> Result<(), Anything> {
        let options = self.admin();
        let (host, port, database) = (options.get_host(), options.get_port(), self.database.name());
        println!("\nKept. Connect to the landlord as the server's admin:");
        if let ServerKind::Url { .. } = self.server.kind() {
            println!("  psql -h {host} -p {port} -U {} {database}", options.get_username());
            return Ok(());
        }
        let file = self.password_file(host, port).await?;
        println!("  PGPASSFILE={} psql -h {host} -p {port} -U {LOOKER} {database}", file.path().display());
        println!("The server ends with this process: press Enter to end it.");
        std::io::stdin().read_line(&mut String::new())?;
        self.server.stop().await?;
        Ok(())
    }

    /// A superuser for the person at the keyboard. Its password stands in a file that nobody else may read.
    #[allow(dead_code, reason = "one of the examples keeps nothing")]
    async fn password_file(&self, host: &str, port: u16) -> Result<tempfile::NamedTempFile, Anything> {
        let password = data_encoding::HEXLOWER.encode(&rand::random::<[u8; 16]>());
        let mut admin = self.admin().connect().await?;
        #[expect(clippy::disallowed_methods, reason = "the password is hexadecimal, and the rest is fixed")]
        let role = sqlx::AssertSqlSafe(format!("CREATE ROLE {LOOKER} SUPERUSER LOGIN PASSWORD '{password}'"));
        admin.execute(role).await?;
        let file = tempfile::Builder::new().prefix("tenantry-quickstart-").tempfile()?;
        std::fs::write(file.path(), format!("{host}:{port}:*:{LOOKER}:{password}\n"))?;
        Ok(file)
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
        let name = self.prefix;
        let statements = [
            format!("DROP DATABASE IF EXISTS {name}_maintenance"),
            format!("DROP ROLE IF EXISTS {name}_blue, {name}_green, {name}_admin"),
        ];
        for statement in statements {
            #[expect(clippy::disallowed_methods, reason = "the prefix is this program's own")]
            admin.execute(sqlx::AssertSqlSafe(statement)).await?;
        }
        println!("\nRemoved: the landlord database, the maintenance database, three roles, and every tenant.");
        Ok(())
    }
}
