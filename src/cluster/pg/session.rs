//! One dedicated connection: never from a pool, never silently made again.
use crate::error::ClusterError;
use crate::names::{DatabaseName, RoleName};
use crate::rt;
use crate::server::{DatabaseServer, TlsMode};
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection};
use std::time::Duration;

/// For a server that does not answer; a local one does within a few milliseconds.
const CONNECT: Duration = Duration::from_secs(10);

/// What a session is for, and so how it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Cluster statements. Its search path is pinned, so no object of a tenant can stand for one of the system's.
    Cluster,
    /// The same behind a lock: asking for that makes it [`quiet`], too.
    Locked,
    /// Migrations and seeds, with the tenant's own search path.
    Content,
    /// Whether a login works, and as whom.
    Probe,
}

impl Purpose {
    /// A stopped client keeps its advisory lock as long as its session lives: so the server looks after it.
    fn options(self) -> Vec<(&'static str, &'static str)> {
        let mut options = vec![
            ("standard_conforming_strings", "on"),
            ("lock_timeout", "10s"),
            // A managed service sets it on a full disk: a suspension and a purge must work then, too.
            ("default_transaction_read_only", "off"),
            ("idle_session_timeout", "1h"),
            ("idle_in_transaction_session_timeout", "5min"),
            ("client_connection_check_interval", "5s"),
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
            ("tcp_user_timeout", "30000"),
            ("client_min_messages", "error"),
        ];
        options.push(match self {
            Self::Cluster | Self::Locked => ("search_path", "pg_catalog"),
            Self::Content | Self::Probe => ("statement_timeout", "30min"),
        });
        if matches!(self, Self::Cluster | Self::Locked) {
            options.push(("statement_timeout", "5min"));
        }
        options
    }
}

/// Who connects, and where to.
pub(crate) struct Target<'a> {
    pub(crate) server: &'a DatabaseServer,
    pub(crate) database: &'a DatabaseName,
    pub(crate) role: &'a RoleName,
    pub(crate) password: &'a SecretString,
    pub(crate) application_name: &'a str,
    pub(crate) purpose: Purpose,
}

impl Target<'_> {
    /// Opens it, within ten seconds. Built by setters: a password never stands in a URL.
    pub(crate) async fn open(&self) -> Result<PgConnection, ClusterError> {
        let options = tls(self.server, self.options());
        let mut session = match tokio::time::timeout(CONNECT, rt::poll_batched(options.connect())).await {
            Ok(Ok(session)) => session,
            Ok(Err(source)) => return Err(self.failed(source)),
            Err(_) => return Err(ClusterError::Deadline { phase: "connecting", limit: CONNECT }),
        };
        if matches!(self.purpose, Purpose::Cluster | Purpose::Content) {
            quiet(&mut session).await.map_err(|e| self.failed(e))?;
        }
        Ok(session)
    }

    fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host(&self.server.host)
            .port(self.server.port)
            .database(self.database.as_str())
            .username(self.role.as_str())
            .password(self.password.expose_secret())
            .application_name(self.application_name)
            .options(self.purpose.options())
            .disable_statement_logging()
    }

    fn failed(&self, source: sqlx::Error) -> ClusterError {
        let (role, database) = (self.role.to_string(), self.database.to_string());
        ClusterError::Connect { role, host: self.server.host.clone(), port: self.server.port, database, source }
    }
}

/// How a connection to this server is encrypted.
pub(crate) fn tls(server: &DatabaseServer, options: PgConnectOptions) -> PgConnectOptions {
    let options = options.ssl_mode(ssl_mode(server.tls));
    match &server.root_certificate {
        Some(pem) => options.ssl_root_cert_from_pem(pem.clone().into_bytes()),
        None => options,
    }
}

fn ssl_mode(mode: TlsMode) -> PgSslMode {
    match mode {
        TlsMode::Disable => PgSslMode::Disable,
        TlsMode::Prefer => PgSslMode::Prefer,
        TlsMode::Require => PgSslMode::Require,
        TlsMode::VerifyCa => PgSslMode::VerifyCa,
        TlsMode::VerifyFull => PgSslMode::VerifyFull,
    }
}

/// Keeps the statements out of the server's log where the session may; they hold verifiers, never passwords.
pub(crate) async fn quiet(session: &mut PgConnection) -> Result<(), sqlx::Error> {
    // The simple protocol: one message there, one back.
    sqlx::raw_sql(concat!("SELECT ", quiet!())).execute(session).await.map(drop)
}

/// Back to the settings and the role that the login gave it.
pub(crate) async fn forget_settings(session: &mut PgConnection) -> Result<(), ClusterError> {
    let reset = sqlx::raw_sql("RESET ALL; RESET ROLE").execute(session).await;
    reset.map(drop).map_err(ClusterError::sql("resetting the session"))
}

/// Ends a session in an orderly way; a server that does not answer ends it by itself.
pub(crate) async fn close(session: PgConnection) {
    let _ = tokio::time::timeout(Duration::from_secs(1), session.close()).await;
}
