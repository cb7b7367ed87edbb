//! Opening the dedicated connections of workers.
//!
//! The workers' sessions are opened here, with server-side timeouts and a pinned search path. They never come from a
//! pool and are never reconnected silently: locks, roles and settings belong to exactly one connection.
use crate::connect::LoginOptions;
use crate::error::ClusterError;
use crate::names::{DatabaseName, RoleName};
use crate::rt;
use crate::server::DatabaseServer;
use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use std::time::Duration;

/// Time limit for connecting.
const CONNECT: Duration = Duration::from_secs(10);

/// What a session is used for. Selects its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Cluster statements. The search path is `pg_catalog`, so that no object of a tenant can take the place of a
    /// catalog object.
    Cluster,
    /// As `Cluster`, for a session that takes the tenant's lock. The lock query also turns off statement logging.
    Locked,
    /// Migrations and seeds, with the tenant's own search path.
    Content,
    /// Checks whether a login works and as which role its sessions run.
    Probe,
    /// The doctor's session in the maintenance database. It takes `default_transaction_read_only` from the server,
    /// because that is one of the things that it observes.
    ObserveServer,
    /// The doctor's session in a tenant's database. It can only read.
    ObserveTenant,
}

impl Purpose {
    /// Settings for the session. A stopped client would keep its advisory lock as long as its session exists, so
    /// timeouts and keepalives make the server end the session.
    fn options(self) -> Vec<(&'static str, &'static str)> {
        let mut options = vec![
            ("standard_conforming_strings", "on"),
            ("idle_in_transaction_session_timeout", "5min"),
            ("client_connection_check_interval", "5s"),
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
            ("tcp_user_timeout", "30000"),
            ("client_min_messages", "error"),
        ];
        if self.is_in_catalogs_only() {
            options.push(("search_path", "pg_catalog"));
        }
        options.extend(self.limits());
        options.extend(self.read_only().map(|read_only| ("default_transaction_read_only", read_only)));
        options
    }
    fn is_in_catalogs_only(self) -> bool {
        !matches!(self, Self::Content | Self::Probe)
    }
    /// An observation gives up soon: what it could not read is a finding, and it must not be in the way of others.
    fn limits(self) -> [(&'static str, &'static str); 3] {
        let (statement, lock, idle) = match self {
            Self::Cluster | Self::Locked => ("5min", "10s", "1h"),
            Self::Content | Self::Probe => ("30min", "10s", "1h"),
            Self::ObserveServer => ("30s", "2s", "10min"),
            Self::ObserveTenant => ("10s", "2s", "10min"),
        };
        [("statement_timeout", statement), ("lock_timeout", lock), ("idle_session_timeout", idle)]
    }
    /// A managed service makes sessions read-only when the disk is full. A suspension and a purge must still work then.
    fn read_only(self) -> Option<&'static str> {
        match self {
            Self::ObserveServer => None,
            Self::ObserveTenant => Some("on"),
            _ => Some("off"),
        }
    }
}

/// Server, database, role and purpose of a session to open.
pub(crate) struct Target<'a> {
    pub(crate) server: &'a DatabaseServer,
    pub(crate) database: &'a DatabaseName,
    pub(crate) role: &'a RoleName,
    pub(crate) password: &'a SecretString,
    pub(crate) application_name: &'a str,
    pub(crate) purpose: Purpose,
}

impl Target<'_> {
    /// Opens the session within ten seconds. The options are built by setters, so the password is never part of a URL.
    pub(crate) async fn open(&self) -> Result<PgConnection, ClusterError> {
        let options = self.options();
        let mut session = match tokio::time::timeout(CONNECT, rt::poll_batched(options.connect())).await {
            Ok(Ok(session)) => session,
            Ok(Err(source)) => return Err(self.connect_error(source)),
            Err(_) => return Err(ClusterError::Deadline { phase: "connecting", limit: CONNECT }),
        };
        if matches!(self.purpose, Purpose::Cluster | Purpose::Content) {
            silence_statement_log(&mut session).await.map_err(|e| self.connect_error(e))?;
        }
        Ok(session)
    }

    fn options(&self) -> PgConnectOptions {
        let login = LoginOptions {
            host: &self.server.host,
            port: self.server.port,
            database: self.database.as_str(),
            role: self.role.as_str(),
            password: self.password,
            application_name: self.application_name,
            tls: self.server.tls,
            root_certificate: self.server.root_certificate.as_deref(),
        };
        login.build().options(self.purpose.options())
    }

    fn connect_error(&self, source: sqlx::Error) -> ClusterError {
        let (role, database) = (self.role.to_string(), self.database.to_string());
        ClusterError::Connect { role, host: self.server.host.clone(), port: self.server.port, database, source }
    }
}

/// Turns off statement logging for the session, if its role has the right to. The statements contain verifiers, never
/// passwords.
pub(crate) async fn silence_statement_log(session: &mut PgConnection) -> Result<(), sqlx::Error> {
    // The simple query protocol needs one round trip; a prepared statement needs two.
    sqlx::raw_sql(concat!("SELECT ", silence_statement_log!())).execute(session).await.map(drop)
}

/// Resets all settings and the role to those after login.
pub(crate) async fn reset_settings(session: &mut PgConnection) -> Result<(), ClusterError> {
    let reset = sqlx::raw_sql("RESET ALL; RESET ROLE").execute(session).await;
    reset.map(drop).map_err(ClusterError::sql("resetting the session"))
}

/// Closes a session and waits up to a second for it. If the server does not answer, its keepalives end the session
/// later.
pub(crate) async fn close(session: PgConnection) {
    let _ = tokio::time::timeout(Duration::from_secs(1), session.close()).await;
}
