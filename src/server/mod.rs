//! A database server that tenants may live on: its address, its roles, how it is reached.
use crate::error::UnknownValue;
use crate::names::{DatabaseName, InvalidName, RoleName, ServerName};
use crate::operation::stored_enum;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use time::OffsetDateTime;

mod locate;

stored_enum! {
    /// How the connection is encrypted, as in libpq's `sslmode`.
    TlsMode, "TLS mode" {
        /// Never; for loopback.
        Disable = "disable",
        /// If the server offers it.
        Prefer = "prefer",
        /// Always, whatever the certificate says.
        Require = "require",
        /// Always; the certificate must be signed by a known authority.
        VerifyCa = "verify_ca",
        /// Always; signed by a known authority for this host name.
        VerifyFull = "verify_full",
    }
}

impl TlsMode {
    /// The one that demands more of the two.
    pub(crate) fn stricter(self, other: Self) -> Self {
        if (self as u8) < (other as u8) { other } else { self }
    }
    /// `verify-full`, but `prefer` where no wire is left to tap.
    pub fn default_for(host: &str) -> Self {
        let loopback = host == "localhost"
            || host.starts_with('/')
            || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback());
        if loopback { Self::Prefer } else { Self::VerifyFull }
    }
}

/// The names that block (a) makes on a server; another installation on the same server has others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServerNames {
    /// NOLOGIN; owns the tenant databases.
    pub admin: RoleName,
    /// The provisioner's first login.
    pub blue: RoleName,
    /// The provisioner's second login.
    pub green: RoleName,
    /// All cluster statements and all advisory locks go through it.
    pub maintenance: DatabaseName,
}

impl ServerNames {
    /// `<prefix>_admin`, `<prefix>_blue`, `<prefix>_green`, `<prefix>_maintenance`.
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
    /// Where a server's set-up stands.
    ServerStatus, "status of a server" {
        /// Being set up: no tenant goes there.
        SettingUp = "setting_up",
        /// Ready.
        Ready = "ready",
    }
}

/// A PostgreSQL server (one cluster) that tenants may live on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DatabaseServer {
    /// The host's name for it.
    pub name: ServerName,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How connections are encrypted.
    pub tls: TlsMode,
    /// Certificates of the authorities to trust, PEM. `None`: the system's.
    pub root_certificate: Option<String>,
    /// What block (a) made there.
    pub names: ServerNames,
    /// Which of the two logins is in use.
    pub login: RoleName,
    /// The version of the secrets of the two logins.
    pub secret_version: i64,
    /// Where its set-up stands.
    pub status: ServerStatus,
    /// Most tenants.
    pub capacity: u32,
    /// A server of weight 2 gets twice the tenants of one of weight 1; at least 1.
    pub weight: u32,
    /// Takes no new tenants.
    pub draining: bool,
    /// Connections that one installation may hold there in all.
    pub max_connections: u32,
    /// The host's own words, for placement.
    pub labels: serde_json::Value,
    /// Roles that may connect to the databases of suspended tenants: see
    /// [`Servers::allow_role`](crate::operations::servers::Servers::allow_role).
    #[serde(default)]
    pub allowed_roles: Vec<RoleName>,
    /// The system identifier of its cluster (`pg_control_system()`). `None`: it could not be read. A promoted standby
    /// has that of its primary; pg_upgrade and a restore from a dump make another one.
    #[serde(default)]
    pub system_identifier: Option<i64>,
    /// When it was first set up.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl DatabaseServer {
    /// A server that is about to be set up, with the defaults of every setting.
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
            created_at: OffsetDateTime::UNIX_EPOCH,
        }
    }
    /// The login that is not in use.
    pub fn idle_login(&self) -> &RoleName {
        if self.login == self.names.blue { &self.names.green } else { &self.names.blue }
    }
}

/// The limit of a login, and the sessions that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct LoginSessions {
    /// -1: no limit.
    pub(crate) limit: i32,
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
    fn only_loopback_goes_without_a_verified_certificate() {
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
