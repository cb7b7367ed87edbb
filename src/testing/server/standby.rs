use super::error::{NoServer, PrepareError};
use super::local::{self, Primary};
use super::session::{self, Session};
use super::{ServerKind, TestServer};
use sqlx::ConnectOptions;

/// What each process of a cluster has of its own.
const OWN: [&str; 6] =
    ["port", "listen_addresses", "unix_socket_directories", "data_directory", "config_file", "hba_file"];

impl TestServer {
    /// Starts a physical standby of a local cluster: it follows this one by streaming, and answers reads. It ends as other
    /// servers do; this one goes on without it.
    ///
    /// # Errors
    /// [`NoStandby`](NoServer::NoStandby) for a container, a server named by URL, and binaries without `pg_basebackup`.
    ///
    /// # Cancel safety
    /// If the future is dropped, nothing stays behind.
    pub async fn standby(&self) -> Result<TestServer, NoServer> {
        let kind = self.kind.to_string();
        let no = |reason: &str| NoServer::NoStandby { kind: kind.clone(), reason: reason.into() };
        let ServerKind::Local { binaries, .. } = &self.kind else {
            return Err(no("only a local cluster's can be made"));
        };
        if !binaries.join("pg_basebackup").is_file() {
            return Err(no("its binaries have no pg_basebackup"));
        }
        // The superuser's password is all that it needs of these options, and they give it in no other way.
        let password = self.admin.to_url_lossy().password().unwrap_or_default().to_owned();
        let setup = |source| NoServer::SetupLinks { kind: kind.clone(), source };
        let arguments = self.arguments().await.map_err(|e| setup(PrepareError::Version(e)))?;
        let primary = Primary { port: self.admin.get_port(), password };
        let running = local::standby(binaries, primary, &arguments).await.map_err(NoServer::Local)?;
        let mut session = Session::open(&running.admin).await.map_err(|e| setup(PrepareError::Version(e)))?;
        let version = session::version(&mut session).await.map_err(|e| setup(PrepareError::Version(e)))?;
        let (version, version_num) = version;
        Ok(TestServer { kind: running.kind, admin: running.admin, version, version_num, watcher: running.watcher })
    }

    /// What this server was started with: a standby must have as many connections, at least.
    async fn arguments(&self) -> Result<Vec<String>, sqlx::Error> {
        const GIVEN: &str = "SELECT name, setting FROM pg_settings WHERE source = 'command line' AND name <> ALL($1)";
        let mut session = Session::open(&self.admin).await?;
        let given: Vec<(String, String)> = sqlx::query_as(GIVEN).bind(&OWN[..]).fetch_all(session.connection()).await?;
        Ok(given.into_iter().flat_map(|(name, value)| ["-c".into(), format!("{name}={value}")]).collect())
    }
}
