//! Where a tenant's data lives, through which roles it is reached, and on which server.
use crate::error::UnknownValue;
use crate::names::{DatabaseName, GroupRoles, RoleName, ServerName};
use crate::operation::stored_enum;
use crate::secret::CredentialId;
use crate::server::TlsMode;
use crate::tenant::TenantId;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

stored_enum! {
    /// What a directory entry is for.
    DatabaseKind, "kind of database" {
        /// Reads and writes.
        Primary = "primary",
        /// Reads only: a physical standby of the primary's server, which has the same roles, passwords and databases. Host,
        /// port and settings are its own; login, credential and generation are always taken from the primary's entry,
        /// whatever stands in this one, so a rotation changes nothing here. Made by
        /// [`TenantDatabase::replica_of`]; one that is not active, or of another database or driver, is left alone.
        Replica = "replica",
        /// Kept, not connected to.
        Backup = "backup",
    }
}
stored_enum! {
    /// Whether a directory entry is in use.
    DatabaseStatus, "status of a database" {
        /// In use, with a login of its own.
        Active = "active",
        /// In use on a shared login, until it is adopted.
        Fallback = "fallback",
        /// Not in use any more.
        Dropped = "dropped",
    }
}
stored_enum! {
    /// Which protocol a database speaks. A MySQL entry can be stored; resolving it is refused with
    /// [`ResolveError::NotBuilt`](crate::error::ResolveError::NotBuilt).
    Driver, "driver" {
        /// PostgreSQL.
        Postgres = "postgres",
        /// MySQL: stored only.
        MySql = "mysql",
    }
}
stored_enum! {
    /// Where a database user stands.
    UserStatus, "status of a database user" {
        /// Sealed, perhaps made on the server, not in use.
        Pending = "pending",
        /// The login that the directory entry names.
        Active = "active",
        /// Replaced; waits to be dropped.
        Retiring = "retiring",
        /// Gone from the server.
        Dropped = "dropped",
    }
}

/// Counts the logins of a tenant: a rotation raises it. Starts at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub i64);
impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a session to a tenant database is set up. Stored as JSON; an absent field means the server's own default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ConnectionSettings {
    /// Schemas, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search_path: Vec<String>,
    /// Of an entry that names a server: the least that is demanded beside the mode in the server's row. `None`: the row's
    /// mode; without a server [`TlsMode::default_for`] the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMode>,
    /// Certificates of the authorities to trust, PEM, unless the entry's server has its own. `None`: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_certificate: Option<String>,
    /// What `pg_stat_activity` shows. `None`: `tenantry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_name: Option<String>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement_timeout_ms: Option<u32>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_timeout_ms: Option<u32>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_in_transaction_timeout_ms: Option<u32>,
}

/// A directory entry: where a tenant's data lives and which credential opens it. No secret in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TenantDatabase {
    /// Whose.
    pub tenant: TenantId,
    /// What for.
    pub kind: DatabaseKind,
    /// Which protocol.
    pub driver: Driver,
    /// The registered server it was provisioned on; `None` for a database that is only pointed to.
    pub server: Option<ServerName>,
    /// Host name or address. For an entry that names a server this is where it was made and part of its key; it is
    /// reached where the server's row says (see [`Servers::relocate`](crate::operations::servers::Servers::relocate)). A replica
    /// and an entry without a server are reached here.
    pub host: String,
    /// TCP port, as `host`.
    pub port: u16,
    /// Database name on that server.
    pub database: DatabaseName,
    /// The login to use.
    pub login: RoleName,
    /// The role that owns the objects and the role that holds the grants, if we made them.
    pub roles: Option<GroupRoles>,
    /// Opens the login's password.
    pub credential: CredentialId,
    /// Which login it is.
    pub generation: Generation,
    /// Whether it is in use.
    pub status: DatabaseStatus,
    /// How sessions are set up.
    pub settings: ConnectionSettings,
}

stored_enum! {
    /// What the application's login may do in its tenant database.
    AppAccess, "access" {
        /// Read and write rows, use sequences, call functions; no DDL.
        App = "app",
        /// Everything that migrations may: for hosts that run DDL with the application's login.
        Owner = "owner",
    }
}

impl TenantDatabase {
    /// An entry for PostgreSQL that is the tenant's primary, of generation 1, with default settings.
    pub fn primary(
        tenant: TenantId, host: impl Into<String>, port: u16, database: DatabaseName, login: RoleName,
        credential: CredentialId,
    ) -> Self {
        Self {
            tenant,
            kind: DatabaseKind::Primary,
            driver: Driver::Postgres,
            server: None,
            host: host.into(),
            port,
            database,
            login,
            roles: None,
            credential,
            generation: Generation(1),
            status: DatabaseStatus::Active,
            settings: ConnectionSettings::default(),
        }
    }

    /// An entry for a physical standby of the primary's server. From the moment that it is stored,
    /// [`TenantPool::read`](crate::TenantPool::read) goes there, and suspensions, archives, purges and rotations end the
    /// tenant's sessions there too. A tenant may have several: reads go to the first one, by host and port.
    ///
    /// TLS is as on the primary if the host said how, there or for the server, else what [`TlsMode::default_for`] says of
    /// the standby's host.
    ///
    /// ```no_run
    /// # async fn example(tenantry: tenantry::Tenantry) -> Result<(), Box<dyn std::error::Error>> {
    /// use tenantry::directory::{DatabaseStatus, TenantDatabase};
    /// use tenantry::registry::{RegistryWriter, TenantRegistryExt};
    ///
    /// let db = tenantry.resolve("acme").await?;
    /// let registry = tenantry.registry_writer();
    /// let primary = registry.primary(db.tenant().id()).await?.ok_or("no entry")?;
    /// let mut replica = TenantDatabase::replica_of(&primary, "standby.internal", 5432);
    /// registry.put_database(None, &replica, None).await?;
    ///
    /// // And back: first this, then the standby's end.
    /// replica.status = DatabaseStatus::Dropped;
    /// registry.put_database(Some(replica.generation), &replica, None).await?;
    /// # Ok(()) }
    /// ```
    pub fn replica_of(primary: &TenantDatabase, host: impl Into<String>, port: u16) -> Self {
        let mut replica = Self { kind: DatabaseKind::Replica, host: host.into(), port, ..primary.clone() };
        replica.settings.tls.take_if(|tls| *tls == TlsMode::default_for(&primary.host));
        replica
    }
    /// Whether this is a standby to read from and to fence, for the tenant whose primary has this database.
    pub(crate) fn is_standby_of(&self, database: &DatabaseName) -> bool {
        self.kind == DatabaseKind::Replica
            && self.status == DatabaseStatus::Active
            && self.driver == Driver::Postgres
            && self.database == *database
    }
}

/// A login of a tenant database, in the order of its life. A row is never removed while the login may exist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DatabaseUser {
    /// Whose.
    pub tenant: TenantId,
    /// On which server.
    pub server: ServerName,
    /// In which database.
    pub database: DatabaseName,
    /// The login.
    pub role: RoleName,
    /// Which generation of the tenant's login.
    pub generation: Generation,
    /// Where it stands.
    pub status: UserStatus,
    /// Why it stands there, if there is more to say.
    pub reason: Option<String>,
}
impl DatabaseUser {
    /// A login that is about to be made.
    pub fn pending(
        tenant: TenantId, server: ServerName, database: DatabaseName, role: RoleName, generation: Generation,
    ) -> Self {
        Self { tenant, server, database, role, generation, status: UserStatus::Pending, reason: None }
    }
    /// The same in another status.
    pub fn with_status(self, status: UserStatus) -> Self {
        Self { status, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_elsewhere_is_not_reached_in_the_clear_because_its_primary_is_at_hand() {
        let tenant = TenantId::new();
        let (database, login): (DatabaseName, RoleName) = ("d".parse().unwrap(), "l".parse().unwrap());
        let credential = CredentialId::login(tenant, &database, &login, 1);
        let mut primary = TenantDatabase::primary(tenant, "localhost", 5432, database.clone(), login, credential);
        let tls = |primary: &TenantDatabase| TenantDatabase::replica_of(primary, "db2.internal", 5432).settings.tls;
        primary.settings.tls = Some(TlsMode::Prefer);
        assert_eq!(tls(&primary), None, "so that the default of its own host counts");
        primary.settings.tls = Some(TlsMode::Require);
        assert_eq!(tls(&primary), Some(TlsMode::Require), "what the host has said is kept");
        assert!(TenantDatabase::replica_of(&primary, "db2.internal", 5432).is_standby_of(&database));
        assert!(!primary.is_standby_of(&database));
    }

    #[test]
    fn settings_are_typed_and_keep_what_is_not_said() {
        assert_eq!(serde_json::to_string(&ConnectionSettings::default()).unwrap(), "{}");
        assert!(serde_json::from_str::<ConnectionSettings>(r#"{"serach_path": ["x"]}"#).is_err());
    }
}
