//! Directory entries: the location of a tenant's database, its roles, and the logins that it has had.
//!
//! The registry stores these types. The resolver connects to the address that
//! [`DatabaseServer`](crate::server::DatabaseServer) determines for an entry, and the operations change entries and
//! logins.
//!
//! Invariants: an entry contains no secret, only the id of one. A [`DatabaseUser`] row is never deleted while its login
//! may exist on a server.
use crate::error::UnknownValue;
use crate::names::{DatabaseName, GroupRoles, RoleName, ServerName};
use crate::operation::stored_enum;
use crate::secret::CredentialId;
use crate::server::TlsMode;
use crate::tenant::TenantId;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

stored_enum! {
    /// The purpose of a directory entry.
    DatabaseKind, "kind of database" {
        /// The database that the application reads and writes.
        Primary = "primary",
        /// A physical standby of the primary's server, for reads only. It has the same roles, passwords and databases.
        /// Host, port and settings are taken from this entry. Login, credential and generation are always taken from
        /// the primary's entry, so a rotation does not change this one. Create it with [`TenantDatabase::replica_of`].
        /// An entry that is not active, or that has another database or driver than the primary, is ignored.
        Replica = "replica",
        /// A database that is only recorded. The crate never connects to it.
        Backup = "backup",
    }
}
stored_enum! {
    /// Whether a directory entry is in use.
    DatabaseStatus, "status of a database" {
        /// In use, with a login for this tenant alone.
        Active = "active",
        /// In use with a login that several tenants share, until the tenant is adopted.
        Fallback = "fallback",
        /// No longer in use.
        Dropped = "dropped",
    }
}
stored_enum! {
    /// The wire protocol of a database. A MySQL entry can be stored, but nothing connects to it: resolving it fails with
    /// [`ResolveError::NotBuilt`](crate::error::ResolveError::NotBuilt), and every operation on its tenant with
    /// [`ChangeError::NotBuilt`](crate::error::ChangeError::NotBuilt).
    Driver, "driver" {
        /// PostgreSQL.
        Postgres = "postgres",
        /// MySQL. Entries can be stored, but not connected to.
        // Earlier versions serialized it as `my_sql`.
        #[serde(alias = "my_sql")]
        MySql = "mysql",
    }
}
stored_enum! {
    /// The state of a tenant's login.
    UserStatus, "status of a database user" {
        /// The vault has its password. The role may exist on the server, but is not in use.
        Pending = "pending",
        /// The directory entry names this login.
        Active = "active",
        /// A rotation has replaced the login. It is dropped later.
        Retiring = "retiring",
        /// The role no longer exists on the server.
        Dropped = "dropped",
    }
}

/// The number of a tenant's login. The first one has 1, and each rotation creates the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub i64);
impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The settings of a session to a tenant database. Stored as JSON. The server's default applies to an absent field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ConnectionSettings {
    /// The schemas of `search_path`, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search_path: Vec<String>,
    /// TLS mode. If the entry names a server, the stricter one of this mode and the server's mode applies, and `None`
    /// means the server's mode. Without a server, `None` means [`TlsMode::default_for`] the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMode>,
    /// Certificates of the trusted authorities in PEM format, for a replica or an entry without a server. An entry that
    /// names a server is connected to with the certificates of the server. `None`: the operating system's authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_certificate: Option<String>,
    /// The `application_name` that `pg_stat_activity` shows. `None`: `tenantry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_name: Option<String>,
    /// PostgreSQL's `statement_timeout` in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement_timeout_ms: Option<u32>,
    /// PostgreSQL's `lock_timeout` in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_timeout_ms: Option<u32>,
    /// PostgreSQL's `idle_in_transaction_session_timeout` in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_in_transaction_timeout_ms: Option<u32>,
}

/// A directory entry: the location of a tenant's database and the id of the credential to connect with. It contains no
/// secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TenantDatabase {
    /// Tenant that owns the entry.
    pub tenant: TenantId,
    /// Purpose of the entry.
    pub kind: DatabaseKind,
    /// Wire protocol of the database.
    pub driver: Driver,
    /// The registered server on which the database was provisioned. `None` for a database that tenantry did not
    /// provision.
    pub server: Option<ServerName>,
    /// Host name or address. It is part of the entry's key. For an entry that names a server, it is the address at the
    /// time of provisioning, and connections use the address in the server's row instead (see
    /// [`Servers::relocate`](crate::operations::servers::Servers::relocate)). A replica and an entry without a server
    /// are connected to at this address.
    pub host: String,
    /// TCP port. The same rules apply as for `host`.
    pub port: u16,
    /// Name of the database on its server.
    pub database: DatabaseName,
    /// The role with which the application logs in.
    pub login: RoleName,
    /// The NOLOGIN roles of the database, if tenantry created them.
    pub roles: Option<GroupRoles>,
    /// Id of the login's password in the vault.
    pub credential: CredentialId,
    /// Generation of the login.
    pub generation: Generation,
    /// Whether the entry is in use.
    pub status: DatabaseStatus,
    /// Settings of each session.
    pub settings: ConnectionSettings,
    /// State of the database's schema when a migration last recorded it
    /// ([`RegistryWriter::record_schema`](crate::registry::RegistryWriter::record_schema)). It is opaque and only
    /// compared: when it changes, every node replaces the sessions that it had opened before. Empty until the first
    /// migration after the provisioning.
    #[serde(default)]
    pub schema_state: String,
}

stored_enum! {
    /// The rights of the application's login in its tenant database.
    AppAccess, "access" {
        /// The login may read and write rows, use sequences and call functions. It may not run DDL.
        App = "app",
        /// The login has the rights of the migrator, for applications that run DDL themselves.
        Owner = "owner",
    }
}

impl TenantDatabase {
    /// An active PostgreSQL entry of kind `Primary` with generation 1, default settings and no server.
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
            schema_state: String::new(),
        }
    }

    /// An entry for a physical standby of the primary's server. As soon as it is stored,
    /// [`TenantPool::read`](crate::TenantPool::read) uses it, and suspensions, archives, purges and rotations end the
    /// tenant's sessions on it too. A tenant may have several replicas. Reads use the first one in the order of host
    /// and port.
    ///
    /// If the TLS mode of the primary's entry or of its server was set explicitly, it applies to the replica too.
    /// Otherwise [`TlsMode::default_for`] the standby's host applies.
    ///
    /// ```no_run
    /// # async fn example(tenantry: tenantry::Tenantry) -> Result<(), Box<dyn std::error::Error>> {
    /// use tenantry::directory::{DatabaseStatus, TenantDatabase};
    /// use tenantry::registry::{RegistryWriter, TenantRegistry};
    ///
    /// let db = tenantry.resolve("acme").await?;
    /// let registry = tenantry.registry_writer();
    /// let primary = registry.primary(db.tenant().id()).await?.ok_or("no entry")?;
    /// let mut replica = TenantDatabase::replica_of(&primary, "standby.internal", 5432);
    /// registry.put_database(None, &replica, None).await?;
    ///
    /// // To remove the standby, first set its entry to `Dropped`, then shut it down.
    /// replica.status = DatabaseStatus::Dropped;
    /// registry.put_database(Some(replica.generation), &replica, None).await?;
    /// # Ok(()) }
    /// ```
    pub fn replica_of(primary: &TenantDatabase, host: impl Into<String>, port: u16) -> Self {
        let mut replica = Self { kind: DatabaseKind::Replica, host: host.into(), port, ..primary.clone() };
        replica.settings.tls.take_if(|tls| *tls == TlsMode::default_for(&primary.host));
        replica
    }
    /// Whether this is an active PostgreSQL replica of a primary with this database. Reads use it, and operations that
    /// refuse the tenant also end the tenant's sessions on it.
    pub(crate) fn is_standby_of(&self, database: &DatabaseName) -> bool {
        self.kind == DatabaseKind::Replica
            && self.status == DatabaseStatus::Active
            && self.driver == Driver::Postgres
            && self.database == *database
    }
}

/// A login of a tenant database. Its row is never deleted while the role may exist on the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DatabaseUser {
    /// Tenant that owns the login.
    pub tenant: TenantId,
    /// Server on which the role exists.
    pub server: ServerName,
    /// Database that the login connects to.
    pub database: DatabaseName,
    /// Name of the login role.
    pub role: RoleName,
    /// Generation of the login.
    pub generation: Generation,
    /// State of the login.
    pub status: UserStatus,
    /// Further information on the state, for example the error that prevents the drop of a retiring login.
    pub reason: Option<String>,
}
impl DatabaseUser {
    /// A login in status `Pending`, to be stored before the role is created.
    pub fn pending(
        tenant: TenantId, server: ServerName, database: DatabaseName, role: RoleName, generation: Generation,
    ) -> Self {
        Self { tenant, server, database, role, generation, status: UserStatus::Pending, reason: None }
    }
    /// Replaces the status.
    pub fn with_status(self, status: UserStatus) -> Self {
        Self { status, ..self }
    }
    /// Whether it is a [temporary login](crate::Tenantry::temporary_login) of a person, by its name. Such a login is
    /// `Retiring` from its beginning: it never is the login of a directory entry.
    pub fn is_temporary(&self) -> bool {
        self.role.as_str() == format!("{}_t{}", self.database, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replica_of_a_loopback_primary_does_not_inherit_the_default_tls_mode() {
        let tenant = TenantId::new();
        let (database, login): (DatabaseName, RoleName) = ("d".parse().unwrap(), "l".parse().unwrap());
        let credential = CredentialId::login(tenant, &database, &login, 1);
        let mut primary = TenantDatabase::primary(tenant, "localhost", 5432, database.clone(), login, credential);
        let tls = |primary: &TenantDatabase| TenantDatabase::replica_of(primary, "db2.internal", 5432).settings.tls;
        primary.settings.tls = Some(TlsMode::Prefer);
        assert_eq!(tls(&primary), None, "the default mode of the primary's host must not apply to the replica's host");
        primary.settings.tls = Some(TlsMode::Require);
        assert_eq!(
            tls(&primary),
            Some(TlsMode::Require),
            "a mode other than the default must be copied to the replica"
        );
        assert!(TenantDatabase::replica_of(&primary, "db2.internal", 5432).is_standby_of(&database));
        assert!(!primary.is_standby_of(&database));
    }

    #[test]
    fn serialized_values_are_the_stored_texts() {
        for driver in Driver::ALL {
            assert_eq!(serde_json::to_value(driver).unwrap(), driver.as_str());
            assert_eq!(driver.to_string().parse::<Driver>().unwrap(), *driver);
        }
        assert_eq!(serde_json::from_str::<Driver>("\"my_sql\"").unwrap(), Driver::MySql, "the spelling of 0.1.0-dev");
        for lane in crate::operation::Lane::ALL {
            assert_eq!(serde_json::to_value(lane).unwrap(), lane.as_str());
        }
        for mode in TlsMode::ALL {
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.as_str());
        }
    }

    #[test]
    fn connection_settings_omit_absent_fields_and_reject_unknown_ones() {
        assert_eq!(serde_json::to_string(&ConnectionSettings::default()).unwrap(), "{}");
        assert!(serde_json::from_str::<ConnectionSettings>(r#"{"serach_path": ["x"]}"#).is_err());
    }
}
