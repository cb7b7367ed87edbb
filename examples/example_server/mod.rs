//! The database server and the landlord database of an example, and their removal.
//!
//! The examples call [`ExampleServer::start`] and [`ExampleServer::landlord`] first, and [`ExampleServer::remove`] or
//! [`ExampleServer::keep`] at the end. The names of everything that an example creates on a server begin with the name of
//! its landlord database, which is random. So another installation, or an earlier run that was kept, is not touched.
use super::AnyError;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::{ConnectOptions, Executor};
use std::path::PathBuf;
use tenantry::testing::TestServer;
use tenantry::testing::server::{EXAMPLE_DATABASE_URL, ServerKind};

pub(crate) mod exit;

#[allow(dead_code, reason = "only the quickstart has --keep")]
/// Superuser role that `--keep` creates on a throwaway server, for the person that runs the example.
const VIEWER: &str = "quickstart";

/// The landlord database, and its login of the same name. Both consist of letters, digits and `_`.
pub(crate) struct Landlord {
    pub(crate) name: String,
    pub(crate) password: String,
}

impl Landlord {
    /// A landlord with a random password, and a random name that begins with `prefix`.
    pub(crate) fn random(prefix: &str) -> Self {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let (suffix, password) = (rand::random::<[u8; 4]>(), rand::random::<[u8; 16]>());
        Self { name: format!("{prefix}_{}", hex(&suffix)), password: hex(&password) }
    }
}

/// A server for an example.
pub(crate) struct ExampleServer {
    server: TestServer,
    landlord: Landlord,
}

impl ExampleServer {
    /// Uses the server at `TENANTRY_DATABASE_URL`, and creates nothing there yet. Without that variable it starts a
    /// server, which keeps its data in the directory `data`; without `data` it is a throwaway server.
    pub(crate) async fn start(landlord: Landlord, data: Option<PathBuf>) -> Result<Self, AnyError> {
        let builder = TestServer::builder().url_variable(EXAMPLE_DATABASE_URL);
        let builder = match data {
            Some(directory) => builder.keep_data(directory),
            None => builder,
        };
        Ok(Self { server: builder.start().await?, landlord })
    }
    /// Prefix of the roles and databases that the example creates.
    pub(crate) fn prefix(&self) -> &str {
        &self.landlord.name
    }
    pub(crate) fn describe(&self) -> String {
        self.server.describe()
    }
    pub(crate) fn admin(&self) -> PgConnectOptions {
        self.server.admin_options()
    }
    /// Whether the server was named by URL, so that it continues to run after the example.
    pub(crate) fn is_named_by_url(&self) -> bool {
        matches!(self.server.kind(), ServerKind::Url { .. })
    }

    /// Creates the landlord database and its login unless they exist, and connects to it.
    pub(crate) async fn landlord(&self) -> Result<PgPool, AnyError> {
        let Landlord { name, password } = &self.landlord;
        let mut admin = self.admin().connect().await?;
        // Keeps the password out of the server's log. The result is ignored: only a superuser may set this.
        let _ = admin.execute("SET log_statement = none").await;
        if !exists(&mut admin, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", name).await? {
            run(&mut admin, format!("CREATE ROLE {name} LOGIN PASSWORD '{password}'")).await?;
        }
        run(&mut admin, format!("GRANT {name} TO CURRENT_USER")).await?;
        if !exists(&mut admin, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).await? {
            run(&mut admin, format!("CREATE DATABASE {name} OWNER {name} TEMPLATE template0")).await?;
        }
        let options = self.admin().username(name).password(password).database(name);
        Ok(tenantry::schema::pool_options().connect_with(options).await?)
    }

    /// Keeps everything and prints how to connect. A throwaway server runs until Enter or Ctrl-C.
    #[allow(dead_code, reason = "only the quickstart has --keep")]
    pub(crate) async fn keep(self) -> Result<(), AnyError> {
        let options = self.admin();
        let (host, port, database) = (options.get_host(), options.get_port(), self.prefix());
        println!("\nEverything was kept. Connect to the landlord as the server admin:");
        if self.is_named_by_url() {
            println!("  psql -h {host} -p {port} -U {} {database}", options.get_username());
            println!("Another run has names of its own and does not touch what was kept.");
            return Ok(());
        }
        let file = self.password_file(host, port).await?;
        println!("  PGPASSFILE={} psql -h {host} -p {port} -U {VIEWER} {database}", file.path().display());
        println!("The server runs as long as this process. Press Enter to stop both.");
        wait_for_enter().await;
        self.server.stop().await?;
        Ok(())
    }

    /// Creates the superuser [`VIEWER`] and writes its password to a file that only the current user can read. Dropping
    /// the result deletes the file.
    #[allow(dead_code, reason = "only the quickstart has --keep")]
    async fn password_file(&self, host: &str, port: u16) -> Result<tempfile::NamedTempFile, AnyError> {
        let password = data_encoding::HEXLOWER.encode(&rand::random::<[u8; 16]>());
        let mut admin = self.admin().connect().await?;
        run(&mut admin, format!("CREATE ROLE {VIEWER} SUPERUSER LOGIN PASSWORD '{password}'")).await?;
        let file = tempfile::Builder::new().prefix("tenantry-quickstart-").tempfile()?;
        std::fs::write(file.path(), format!("{host}:{port}:*:{VIEWER}:{password}\n"))?;
        Ok(file)
    }

    /// Stops a server that was started, and keeps its data if it has a directory for it. On the server at
    /// `TENANTRY_DATABASE_URL` everything stays.
    #[allow(dead_code, reason = "the quickstart removes or keeps everything")]
    pub(crate) async fn stop(self) -> Result<(), AnyError> {
        Ok(self.server.stop().await?)
    }

    /// Stops a server that was started and removes its data. On the server at `TENANTRY_DATABASE_URL`, drops the
    /// landlord, the maintenance database and the roles; the caller has purged the tenants. A statement that fails does
    /// not keep the others from running.
    pub(crate) async fn remove(self) -> Result<(), AnyError> {
        if !self.is_named_by_url() {
            self.server.remove().await?;
            println!("\nThe server is stopped and removed.");
            return Ok(());
        }
        let mut admin = self.admin().connect().await?;
        let name = self.prefix();
        let (admin_role, mut failed): (_, Option<AnyError>) = (format!("{name}_admin"), None);
        // The role that owns the maintenance database. An admin that is no superuser must be a member of it to drop that.
        if exists(&mut admin, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", &admin_role).await? {
            run(&mut admin, format!("GRANT {admin_role} TO CURRENT_USER")).await?;
        }
        for statement in [
            format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
            format!("DROP DATABASE IF EXISTS {name}_maintenance"),
            format!("DROP ROLE IF EXISTS {name}"),
            format!("DROP ROLE IF EXISTS {name}_blue"),
            format!("DROP ROLE IF EXISTS {name}_green"),
            format!("DROP ROLE IF EXISTS {name}_admin"),
        ] {
            if let Err(error) = run(&mut admin, statement.clone()).await {
                failed = failed.or(Some(format!("{statement}: {error}").into()));
            }
        }
        match failed {
            Some(error) => Err(error),
            None => {
                println!("\nRemoved: the landlord database, the maintenance database, the roles, and every tenant.");
                Ok(())
            }
        }
    }
}

/// Runs one statement. Its names and literals consist of letters, digits and `_`.
async fn run(session: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
    #[expect(clippy::disallowed_methods, reason = "the names are letters, digits and underscores")]
    session.execute(sqlx::AssertSqlSafe(statement)).await.map(drop)
}

async fn exists(session: &mut PgConnection, query: &'static str, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(query).bind(name).fetch_one(session).await
}

/// Waits for a line or the end of standard input, or for Ctrl-C. The thread that reads ends with the process.
#[allow(dead_code, reason = "only the quickstart has --keep")]
async fn wait_for_enter() {
    let (sender, entered) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        sender.send(())
    });
    tokio::select! {
        _ = entered => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
