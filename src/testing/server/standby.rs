//! Physical standbys of a local test server.
use super::error::{NoServer, PrepareError};
use super::local::{self, Primary};
use super::session::{self, Session};
use super::{ServerKind, TestServer};
use sqlx::ConnectOptions;

/// Settings that differ between a primary and its standby, so they are not copied.
const NOT_COPIED: [&str; 6] =
    ["port", "listen_addresses", "unix_socket_directories", "data_directory", "config_file", "hba_file"];

impl TestServer {
    /// Starts a physical standby of this local cluster. It replicates by streaming and answers reads. It stops as every
    /// server that was started, and this server does not depend on it.
    ///
    /// # Errors
    /// [`NoStandby`](NoServer::NoStandby) for a container, a server named by URL, and binaries without `pg_basebackup`.
    ///
    /// # Cancel safety
    /// If the future is dropped, nothing stays behind.
    pub async fn standby(&self) -> Result<TestServer, NoServer> {
        let kind = self.kind.to_string();
        let error = |reason: &str| NoServer::NoStandby { kind: kind.clone(), reason: reason.into() };
        let ServerKind::Local { binaries, .. } = &self.kind else {
            return Err(error("only a local cluster can have a standby"));
        };
        if !binaries.join("pg_basebackup").is_file() {
            return Err(error("its directory of binaries has no pg_basebackup"));
        }
        // The options have no method that returns the password, so it is taken from their URL.
        let password = self.admin.to_url_lossy().password().unwrap_or_default().to_owned();
        let setup_error = |source| NoServer::Setup { kind: kind.clone(), source };
        let arguments = self.copied_arguments().await.map_err(|e| setup_error(PrepareError::Version(e)))?;
        let primary = Primary { port: self.admin.get_port(), password };
        let running = local::start_standby(binaries, primary, &arguments).await.map_err(NoServer::Local)?;
        let mut session = Session::open(&running.admin).await.map_err(|e| setup_error(PrepareError::Version(e)))?;
        let version = session::read_version(&mut session).await.map_err(|e| setup_error(PrepareError::Version(e)))?;
        let (version, version_num) = version;
        Ok(TestServer {
            kind: running.kind,
            admin: running.admin,
            version,
            version_num,
            watcher: running.watcher,
            kept: None,
        })
    }

    /// The settings of this server's command line, for the standby's. A standby does not start if its `max_connections`
    /// is lower than the primary's.
    async fn copied_arguments(&self) -> Result<Vec<String>, sqlx::Error> {
        const SETTINGS: &str =
            "SELECT name, setting FROM pg_settings WHERE source = 'command line' AND name <> ALL($1)";
        let mut session = Session::open(&self.admin).await?;
        let settings: Vec<(String, String)> =
            sqlx::query_as(SETTINGS).bind(&NOT_COPIED[..]).fetch_all(session.connection()).await?;
        Ok(settings.into_iter().flat_map(|(name, value)| ["-c".into(), format!("{name}={value}")]).collect())
    }
}
