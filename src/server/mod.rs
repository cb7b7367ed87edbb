//! The registered PostgreSQL servers: address, TLS, the provisioner's roles, capacity and status.
//!
//! The registry stores a [`DatabaseServer`] row for each server. Placement, the operations and the resolver read it.
//!
//! Invariant: the row's address is the only one to which tenants of the server are connected, except for replicas.
use crate::error::UnknownValue;
use crate::names::{DatabaseName, InvalidName, RoleName, ServerName};
use crate::operation::stored_enum;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use time::OffsetDateTime;

mod locate;
mod trust;
pub(crate) use trust::AddressPolicy;

stored_enum! {
    /// The encryption of a connection, as in libpq's `sslmode`. The modes are in ascending order of strictness.
    TlsMode, "TLS mode" {
        /// The connection is not encrypted.
        Disable = "disable",
        /// The connection is encrypted if the server offers it.
        Prefer = "prefer",
        /// The connection is encrypted. The certificate is not checked.
        Require = "require",
        /// The connection is encrypted. A trusted authority must have signed the certificate.
        VerifyCa = "verify_ca",
        /// The connection is encrypted. A trusted authority must have signed the certificate for this host name.
        VerifyFull = "verify_full",
    }
}

impl TlsMode {
    /// The stricter one of two modes.
    pub(crate) fn stricter(self, other: Self) -> Self {
        if (self as u8) < (other as u8) { other } else { self }
    }
    /// `VerifyFull`, or `Prefer` for a loopback address or a socket directory, because that traffic stays on the
    /// machine.
    pub fn default_for(host: &str) -> Self {
        if Self::is_on_this_machine(host) { Self::Prefer } else { Self::VerifyFull }
    }
    /// Whether traffic to the host stays on this machine: a loopback address or a socket directory.
    pub(crate) fn is_on_this_machine(host: &str) -> bool {
        host == "localhost"
            || host.starts_with('/')
            || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback())
    }
}

/// The names of the roles and of the database that the set-up of a server creates. Several installations can share a
/// server if their names differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServerNames {
    /// The NOLOGIN role that owns the tenant databases.
    pub admin: RoleName,
    /// The provisioner's first login.
    pub blue: RoleName,
    /// The provisioner's second login.
    pub green: RoleName,
    /// The database to which the provisioner connects for cluster-wide statements and for advisory locks.
    pub maintenance: DatabaseName,
}

impl ServerNames {
    /// Derives `<prefix>_admin`, `<prefix>_blue`, `<prefix>_green` and `<prefix>_maintenance`. Fails if one of them is
    /// not a valid name.
    pub fn with_prefix(prefix: &str) -> Result<Self, InvalidName> {
        Ok(Self {
            admin: format!("{prefix}_admin").parse()?,
            blue: format!("{prefix}_blue").parse()?,
            green: format!("{prefix}_green").parse()?,
            maintenance: format!("{prefix}_maintenance").parse()?,
        })
    }
}

stored_enum! {
    /// The state of a server's set-up.
    ServerStatus, "status of a server" {
        /// The set-up has not ended. The server takes no tenants yet.
        SettingUp = "setting_up",
        /// The set-up has ended.
        Ready = "ready",
    }
}

/// A PostgreSQL server (one cluster) for tenant databases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DatabaseServer {
    /// The name that the application gives to the server.
    pub name: ServerName,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Encryption of connections. Default: [`TlsMode::default_for`] the host.
    pub tls: TlsMode,
    /// Certificates of the trusted authorities in PEM format. `None`: the operating system's authorities.
    pub root_certificate: Option<String>,
    /// Names of the roles and of the database that the set-up created.
    pub names: ServerNames,
    /// The one of the provisioner's two logins that is in use.
    pub login: RoleName,
    /// Version of the stored passwords of both logins.
    pub secret_version: i64,
    /// State of the set-up.
    pub status: ServerStatus,
    /// Maximum number of tenants on this server. Default: 1000.
    pub capacity: u32,
    /// Relative share of new tenants. A server of weight 2 gets twice as many as one of weight 1. At least 1; default:
    /// 1.
    pub weight: u32,
    /// Whether the server refuses new tenants.
    pub draining: bool,
    /// Maximum connections to this server, over all nodes of the installation. Default: 90.
    pub max_connections: u32,
    /// Free-form JSON for the application's placement function.
    pub labels: serde_json::Value,
    /// Roles that may keep the right to connect to the databases of suspended tenants: see
    /// [`Servers::allow_role`](crate::operations::servers::Servers::allow_role).
    #[serde(default)]
    pub allowed_roles: Vec<RoleName>,
    /// The system identifier of the cluster (`pg_control_system()`). `None` if it could not be read. A promoted standby
    /// has the identifier of its primary. pg_upgrade and a restore from a dump create a new one.
    #[serde(default)]
    pub system_identifier: Option<i64>,
    /// Authentication code of name, host, port, TLS mode and root certificate, under a key that only the key ring opens.
    /// Every operation that writes the row computes it. `None` if a version without codes has written the row.
    #[serde(default)]
    pub address_mac: Option<String>,
    /// When the server was first set up, by the landlord's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl DatabaseServer {
    /// A server in status `SettingUp`, with the default of every setting.
    pub fn new(name: ServerName, host: impl Into<String>, port: u16, names: ServerNames) -> Self {
        let host = host.into();
        Self {
            name,
            tls: TlsMode::default_for(&host),
            host,
            port,
            root_certificate: None,
            login: names.blue.clone(),
            names,
            secret_version: 1,
            status: ServerStatus::SettingUp,
            capacity: 1000,
            weight: 1,
            draining: false,
            max_connections: 90,
            labels: serde_json::Value::Null,
            allowed_roles: vec![],
            system_identifier: None,
            address_mac: None,
            created_at: OffsetDateTime::UNIX_EPOCH,
        }
    }
    /// The one of the provisioner's two logins that is not in use. A rotation changes its password first and then
    /// switches to it.
    pub fn idle_login(&self) -> &RoleName {
        if self.login == self.names.blue { &self.names.green } else { &self.names.blue }
    }
}

/// The connection limit of a login and the number of its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct LoginSessions {
    /// The role's CONNECTION LIMIT; -1 if it has none.
    pub(crate) limit: i32,
    /// Number of sessions that the login has on the server.
    pub(crate) sessions: i64,
}

impl LoginSessions {
    /// Whether the server refuses this login another session because of its own limit.
    pub(crate) fn is_full(&self) -> bool {
        self.limit >= 0 && self.sessions >= i64::from(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_tls_mode_verifies_the_certificate_except_on_loopback() {
        for host in ["127.0.0.1", "::1", "[::1]", "localhost", "/run/postgresql"] {
            assert_eq!(TlsMode::default_for(host), TlsMode::Prefer, "{host}");
        }
        for host in ["db1.internal", "10.0.0.1", "localhost.example.org"] {
            assert_eq!(TlsMode::default_for(host), TlsMode::VerifyFull, "{host}");
        }
    }

    #[test]
    fn login_is_full_when_its_sessions_reach_its_limit() {
        let is_full = |limit, sessions| LoginSessions { limit, sessions }.is_full();
        assert!(is_full(43, 43) && is_full(0, 0));
        assert!(!is_full(43, 42) && !is_full(-1, 10_000));
    }
}
