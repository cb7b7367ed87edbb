//! A PostgreSQL server for tests and examples. It is found by its URL, or started and removed again.
//!
//! [`TestServer`] uses the first of these that is available:
//! 1. The server at the URL in [`DATABASE_URL`] (examples: [`EXAMPLE_DATABASE_URL`]).
//! 2. A Docker container of the image in [`IMAGE`]. The default is `tenantry-postgres:17` if it exists locally, else
//!    `postgres:17`, which is pulled if that takes less than 60 s.
//! 3. A throwaway cluster on loopback, with the machine's own PostgreSQL binaries: those in the directory [`PG_BIN`],
//!    else those in `PATH`, else the newest version where the packages of Linux distributions, Homebrew or Postgres.app
//!    install them.
//!
//! [`BACKEND`] (`url`, `container` or `local`) forces one of them; if it does not work, the start fails.
//! [`LC_MESSAGES`] sets the language of the server's messages, for example `de_DE.UTF-8`. The start fails if the
//! messages are English all the same. A server named by URL must have this setting already.
//!
//! Invariants: a started server accepts only password logins (scram-sha-256). It ends with the process that started it,
//! even after `kill -9`: a watcher process reads from a pipe, and removes the server when the pipe closes.
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
mod kept;
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
use kept::KeptData;
pub use log::LogError;
use watcher::Watcher;

/// A PostgreSQL server, and superuser access to it.
///
/// Dropping it stops a server that it has started, in the background. [`stop`](Self::stop) waits until that is done.
/// [`remove`](Self::remove) also removes the data that [`keep_data`](TestServerBuilder::keep_data) has kept.
pub struct TestServer {
    kind: ServerKind,
    admin: PgConnectOptions,
    version: String,
    version_num: u32,
    watcher: Option<Watcher>,
    kept: Option<KeptData>,
}

/// The kind of a test server, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerKind {
    /// A server named by URL. It is neither configured nor stopped.
    #[non_exhaustive]
    Url {
        /// Host name or address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A Docker container that was started for the tests.
    #[non_exhaustive]
    Container {
        /// Name of the container.
        name: String,
        /// Image of the container.
        image: String,
    },
    /// A throwaway cluster with the machine's own binaries.
    #[non_exhaustive]
    Local {
        /// Directory that contains `postgres` and `initdb`.
        binaries: PathBuf,
        /// Directory of the cluster's files, such as `data` and `server.log`. It is removed with the server.
        directory: PathBuf,
    },
}

impl TestServer {
    /// The shared server of this process. The first call starts it with the default settings; it runs until the process
    /// ends. A failed start is not repeated: every later call returns the same error.
    ///
    /// # Cancel safety
    /// If the future of the first call is dropped, the next call starts the server.
    pub async fn shared() -> Result<&'static TestServer, &'static NoServer> {
        static SHARED: OnceCell<Result<TestServer, NoServer>> = OnceCell::const_new();
        SHARED.get_or_init(TestServer::start).await.as_ref()
    }

    /// Finds or starts a server with the default settings. If the future is dropped, a server that was started is
    /// removed.
    pub async fn start() -> Result<TestServer, NoServer> {
        Self::builder().start().await
    }

    /// Starts a builder, for a server with other settings.
    pub fn builder() -> TestServerBuilder {
        TestServerBuilder::new()
    }

    /// Options to connect to the database `postgres`, or to the one in the URL, as the superuser.
    pub fn admin_options(&self) -> PgConnectOptions {
        self.admin.clone()
    }

    /// The kind of the server, and where it is.
    pub fn kind(&self) -> &ServerKind {
        &self.kind
    }

    /// The setting `server_version_num`: 150014 is version 15.14.
    pub fn version_num(&self) -> u32 {
        self.version_num
    }

    /// Describes the server in one line, without its password.
    pub fn describe(&self) -> String {
        format!("PostgreSQL {}, {}", self.version, self.kind)
    }

    /// Crashes the server as `pg_ctl restart -m immediate` does, and waits until it has recovered and accepts
    /// connections.
    ///
    /// # Errors
    /// `Unsupported` unless it is a local cluster; `TimedOut` if it does not recover within 120 s.
    pub async fn crash(&self) -> std::io::Result<()> {
        match &self.kind {
            ServerKind::Local { directory, .. } => local::crash(directory, &self.admin).await,
            _ => Err(std::io::ErrorKind::Unsupported.into()),
        }
    }

    /// Stops a server that was started, and waits until its processes and files, or its container, are removed. A
    /// server named by URL is not stopped. If the future is dropped, the server is removed in the background.
    ///
    /// # Errors
    /// `TimedOut` if that takes longer than 60 s; the removal continues.
    pub async fn stop(mut self) -> std::io::Result<()> {
        self.finish().await
    }

    /// As [`stop`](Self::stop), and then removes the data that [`keep_data`](TestServerBuilder::keep_data) has kept, with
    /// its directory. Nothing of a server named by URL is removed but that directory.
    ///
    /// # Errors
    /// Those of [`stop`](Self::stop), and errors from deleting the files or the Docker volume.
    ///
    /// # Cancel safety
    /// If the future is dropped, the data may stay, in whole or in part.
    pub async fn remove(mut self) -> std::io::Result<()> {
        self.finish().await?;
        let Some(kept) = self.kept.take() else { return Ok(()) };
        if matches!(self.kind, ServerKind::Container { .. }) {
            container::remove_volume(&kept.volume()?).await.map_err(std::io::Error::other)?;
        }
        kept.remove()
    }

    async fn finish(&mut self) -> std::io::Result<()> {
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
