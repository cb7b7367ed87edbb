//! A PostgreSQL server for tests and examples: found, or started and taken away again.
//!
//! Which one, in this order:
//! 1. the server at the URL in [`DATABASE_URL`] (examples: [`EXAMPLE_DATABASE_URL`]);
//! 2. a container, when Docker answers: the image in [`IMAGE`], else `tenantry-postgres:17` if it is there,
//!    else `postgres:17`, pulled within 60 s;
//! 3. the machine's own PostgreSQL binaries (the directory in [`PG_BIN`], else `PATH`, else the newest of
//!    `/usr/lib/postgresql/*/bin`), as a throwaway cluster on loopback.
//!
//! [`BACKEND`] (`url`, `container` or `local`) forces one; then it is an error if that one does not work.
//! [`LC_MESSAGES`] is the language that the server speaks, `de_DE.UTF-8` say; it is an error if it speaks English
//! all the same. A server named by URL has to speak it already.
//! All take passwords only (scram-sha-256). A started server ends with the process, also after `kill -9`:
//! a watcher holds the other end of a pipe and clears up when it closes.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tenantry::testing::TestServer;
//!
//! let server = TestServer::shared().await?; // one per process
//! let landlord = server.create_database("landlord").await?;
//! let pool = sqlx::PgPool::connect_with(landlord.options()).await?;
//! # Ok(()) }
//! ```

mod binaries;
mod builder;
mod choice;
mod container;
mod database;
mod error;
mod language;
mod local;
mod log;
mod running;
mod session;
mod standby;
mod tls;
mod url;
mod watcher;

use std::fmt;
use std::path::PathBuf;

use sqlx::postgres::PgConnectOptions;
use tokio::sync::OnceCell;

pub use builder::TestServerBuilder;
pub use choice::{BACKEND, DATABASE_URL, EXAMPLE_DATABASE_URL, IMAGE, LC_MESSAGES, PG_BIN};
pub use database::{DatabaseError, TestDatabase};
pub use error::{ContainerError, LocalError, NoServer, PrepareError};
pub use log::LogError;
use watcher::Watcher;

/// A PostgreSQL server, with the rights of its superuser.
///
/// Dropping it stops a server that was started for it, in the background; [`stop`](Self::stop) also waits.
pub struct TestServer {
    kind: ServerKind,
    admin: PgConnectOptions,
    version: String,
    version_num: u32,
    watcher: Option<Watcher>,
}

/// Which server it is, and where it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerKind {
    /// A server that was there before and stays.
    #[non_exhaustive]
    Url {
        /// Its host name or address.
        host: String,
        /// Its TCP port.
        port: u16,
    },
    /// A Docker container of our own.
    #[non_exhaustive]
    Container {
        /// The container's name.
        name: String,
        /// The image it runs.
        image: String,
    },
    /// A throwaway cluster made with the machine's own binaries.
    #[non_exhaustive]
    Local {
        /// Where `postgres` and `initdb` are.
        binaries: PathBuf,
        /// All that it has on disk: `data`, `server.log`.
        directory: PathBuf,
    },
}

impl TestServer {
    /// The one server of this process, started by the first caller with the default settings.
    ///
    /// It lives as long as the process. Cancel safe: if the first caller is dropped, the next one starts it.
    pub async fn shared() -> Result<&'static TestServer, &'static NoServer> {
        static SHARED: OnceCell<Result<TestServer, NoServer>> = OnceCell::const_new();
        SHARED.get_or_init(TestServer::start).await.as_ref()
    }

    /// Finds or starts a server with the default settings. If the future is dropped, nothing stays behind.
    pub async fn start() -> Result<TestServer, NoServer> {
        Self::builder().start().await
    }

    /// A server with settings of its own.
    pub fn builder() -> TestServerBuilder {
        TestServerBuilder::new()
    }

    /// How to connect to database `postgres` (or the one in the URL) as the superuser.
    pub fn admin_options(&self) -> PgConnectOptions {
        self.admin.clone()
    }

    /// Which server it is, and where it lives.
    pub fn kind(&self) -> &ServerKind {
        &self.kind
    }

    /// As `server_version_num` has it: 150014 is 15.14.
    pub fn version_num(&self) -> u32 {
        self.version_num
    }

    /// One line that says which server this is, without its password.
    pub fn describe(&self) -> String {
        format!("PostgreSQL {}, {}", self.version, self.kind)
    }

    /// Kills the server as `pg_ctl restart -m immediate` does, and waits until it has recovered and answers again.
    ///
    /// # Errors
    /// `Unsupported` for any but a local cluster.
    pub async fn crash(&self) -> std::io::Result<()> {
        match &self.kind {
            ServerKind::Local { directory, .. } => local::crash(directory, &self.admin).await,
            _ => Err(std::io::ErrorKind::Unsupported.into()),
        }
    }

    /// Stops a server that was started for this and waits until nothing of it is left.
    ///
    /// If the future is dropped, the server still stops. A server named by URL stays as it is.
    pub async fn stop(mut self) -> std::io::Result<()> {
        match self.watcher.take() {
            Some(watcher) => watcher.finish().await,
            None => Ok(()),
        }
    }
}

impl fmt::Debug for TestServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestServer").field("kind", &self.kind).field("version", &self.version).finish()
    }
}

impl fmt::Display for ServerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { host, port } => write!(f, "found by URL at {host}:{port}"),
            Self::Container { name, image } => write!(f, "container {name} of image {image}"),
            Self::Local { binaries, directory } => {
                write!(f, "binaries of {}, cluster in {}", binaries.display(), directory.display())
            }
        }
    }
}
