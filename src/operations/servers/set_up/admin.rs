//! What a set-up takes from the server admin's connection options: the address, the root certificate, and the session.
//!
//! The options are the application's own. A set-up adds to them what it needs, and replaces nothing that the
//! application has chosen. What it cannot take over into the server's row is refused before anything is created,
//! because otherwise the admin would connect and the application would not.
use super::ServerSetup;
use super::context::connect_admin;
use crate::cluster::pg::bootstrap::{self, Admin};
use crate::cluster::pg::session;
use crate::connect::{self, RootCertificate};
use crate::error::{ClusterError, InheritedVariable, ServerSetupError};
use crate::server::{DatabaseServer, TlsMode};
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use std::io;

impl ServerSetup {
    /// Refuses a variable that would change the connections to the server, unless the builder accepts it.
    pub(super) fn check_environment(&self) -> Result<(), ServerSetupError> {
        match connect::find_inherited_variable() {
            Some(variable) if !self.servers.accepts_pg_environment => Err(InheritedVariable::new(variable).into()),
            _ => Ok(()),
        }
    }

    /// The address that this call names, or that of the admin's connection.
    ///
    /// # Errors
    /// `Socket` if the admin's connection has no address that other machines can use.
    pub(super) fn choose_address(&self, stored: Option<&DatabaseServer>) -> Result<(String, u16), ServerSetupError> {
        if let Some(address) = &self.address {
            return Ok(address.clone());
        }
        let (host, port) = self.admin_address();
        match host.starts_with('/') && !stored.is_some_and(|server| server.is_at(&host, port)) {
            true => Err(ServerSetupError::Socket { directory: host }),
            false => Ok((host, port)),
        }
    }

    /// Where the admin connects. For a Unix socket the host is its directory.
    fn admin_address(&self) -> (String, u16) {
        let socket = self.admin.get_socket().map(|directory| directory.to_string_lossy().into_owned());
        (socket.unwrap_or_else(|| self.admin.get_host().to_owned()), self.admin.get_port())
    }

    /// The root certificate that this call names. If the admin connects to the server's own address, that is also the
    /// one of the admin's options.
    pub(super) async fn choose_root_certificate(
        &self, host: &str, port: u16,
    ) -> Result<Option<String>, ServerSetupError> {
        let refused = |origin: &str, source| ServerSetupError::RootCertificate { origin: origin.into(), source };
        if let Some(pem) = &self.root_certificate {
            check_pem(pem).map_err(|error| refused("root_certificate()", error))?;
            return Ok(Some(pem.clone()));
        }
        if self.admin_address() != (host.to_owned(), port) {
            return Ok(None);
        }
        match connect::root_certificate(&self.admin) {
            None => Ok(None),
            Some(RootCertificate::Pem(pem)) => {
                check_pem(&pem).map_err(|error| refused("the admin's options", error))?;
                Ok(Some(pem))
            }
            Some(RootCertificate::File(path)) => {
                let origin = path.display().to_string();
                let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
                let pem = read.map_err(io::Error::other).flatten().map_err(|error| refused(&origin, error))?;
                check_pem(&pem).map_err(|error| refused(&origin, error))?;
                Ok(Some(pem))
            }
        }
    }

    /// Connects as the server admin and checks its rights. Returns the options with which the saga connects.
    pub(super) async fn check_admin(&self, server: &DatabaseServer) -> Result<PgConnectOptions, ServerSetupError> {
        let options = self.trust_as_application(server).application_name("tenantry set-up");
        // Any session of the server may hold a lock that a statement of the set-up needs.
        let settings = [("search_path", "pg_catalog"), ("lock_timeout", "3s"), ("statement_timeout", "5min")];
        let options = options.options(settings).disable_statement_logging();
        let mut session = connect_admin(&options).await.map_err(error_on_server)?;
        let admin = bootstrap::read_admin_rights(&mut session).await.map_err(error_on_server)?;
        session::close(session).await;
        check_rights(admin)?;
        Ok(options)
    }

    /// The admin's options. If they have the server's address, they also have the TLS mode and the root certificate of
    /// its row, so that a server to which the application could not connect is found before a role exists.
    fn trust_as_application(&self, server: &DatabaseServer) -> PgConnectOptions {
        let (host, port) = self.admin_address();
        let is_at_server = server.is_at(&host, port);
        let floor =
            if is_at_server || TlsMode::default_for(&host) != TlsMode::Prefer { server.tls } else { TlsMode::Prefer };
        // `Prefer` is sqlx's default, not a choice of the application.
        let mode = match connect::tls_mode(&self.admin) {
            TlsMode::Prefer => floor,
            chosen => chosen.stricter(floor),
        };
        let options = self.admin.clone().ssl_mode(connect::ssl_mode(mode));
        match &server.root_certificate {
            Some(pem) if is_at_server || connect::root_certificate(&options).is_none() => {
                options.ssl_root_cert_from_pem(pem.clone().into_bytes())
            }
            _ => options,
        }
    }
}

/// The caller's error for a failure on the server outside of the operation.
pub(super) fn error_on_server(error: ClusterError) -> ServerSetupError {
    match error {
        ClusterError::Foreign { kind, name } => ServerSetupError::Foreign { kind, name },
        ClusterError::Blocked { phase, by } => ServerSetupError::Blocked { phase, by },
        error => ServerSetupError::Connect(Box::new(error)),
    }
}

/// Fails if the text contains no certificate. sqlx would ignore such a text and trust the system's authorities only.
fn check_pem(text: &str) -> io::Result<()> {
    match text.contains("-----BEGIN CERTIFICATE-----") {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it contains no certificate in PEM format")),
    }
}

fn check_rights(admin: Admin) -> Result<(), ServerSetupError> {
    if admin.version < 150_000 {
        return Err(ServerSetupError::Version { found: (admin.version / 10_000).to_string() });
    }
    let lacks = |right| Err(ServerSetupError::Rights { role: admin.role.clone(), right });
    match admin {
        Admin { superuser: true, .. } => Ok(()),
        Admin { create_role: false, .. } => lacks("CREATEROLE"),
        Admin { create_db: false, .. } => lacks("CREATEDB"),
        _ => Ok(()),
    }
}
