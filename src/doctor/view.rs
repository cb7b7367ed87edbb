//! What the checks compare: the state of the landlord, of a server, and of a tenant, as one examination has read it.
//!
//! `observe` fills these types, and the pure functions in `checks` read them. A part that could not be read is an
//! explicit variant and never an empty list, so that a check cannot take it for healthy.
use crate::cluster::MigrationStatus;
use crate::cluster::pg::observe::{
    Blocker, Holder, ObservedDatabase, ObservedObject, ObservedRole, ObservedSequence, ServerFacts,
};
use crate::directory::{AppAccess, DatabaseUser, TenantDatabase};
use crate::error::{SchemaError, UnreadableRow};
use crate::names::{RoleName, ServerName, TenantNames};
use crate::operation::OperationId;
use crate::secret::KeyId;
use crate::server::DatabaseServer;
use crate::store::journal::Record;
use crate::store::registry::{Placement, Retirement};
use crate::tenant::Tenant;
use sqlx::migrate::Migrator;
use std::collections::HashMap;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

/// What this program expects of tenants. `None`: this program does not know it, so it is not checked.
#[derive(Clone, Default)]
pub(crate) struct Expected {
    pub(crate) access: Option<AppAccess>,
    pub(crate) temp_tables: Option<bool>,
    pub(crate) connection_limit: Option<i32>,
    pub(crate) migrations: Option<&'static Migrator>,
    /// Maximum connections of one node to one server.
    pub(crate) max_connections: u32,
    /// Whether that is the limit of all nodes together.
    pub(crate) shares_connections: bool,
    /// Time limit of an operation before its pivot step.
    pub(crate) deadline: Duration,
    /// How long a session may be idle in a transaction while others wait for it. The facade sets 60 s.
    pub(crate) blocking_after: Duration,
}

/// A part of an observation that may be missing.
#[derive(Debug)]
pub(crate) enum Seen<T> {
    Read(T),
    /// It does not apply, for example the content of an archived tenant's database.
    NotApplicable,
    /// A right or a connection was missing. The text says which.
    Hidden(String),
}

impl<T> Seen<T> {
    pub(crate) fn read(&self) -> Option<&T> {
        match self {
            Self::Read(value) => Some(value),
            _ => None,
        }
    }
}

/// The landlord.
pub(crate) struct LandlordView {
    pub(crate) now: OffsetDateTime,
    /// This node's clock minus the landlord's, in seconds, and half of the round trip.
    pub(crate) node_skew: (f64, f64),
    pub(crate) schema: Result<(), SchemaError>,
    pub(crate) keys: KeyView,
    pub(crate) operations: Vec<Record>,
    pub(crate) retiring: Vec<Retirement>,
    pub(crate) live_nodes: u32,
    pub(crate) blockers: Seen<Vec<Blocker>>,
    pub(crate) unreadable: Vec<UnreadableRow>,
    /// Facts of every server that answered, to compare them with each other.
    pub(crate) servers: Vec<(DatabaseServer, ServerFacts, Option<i64>)>,
}

/// The keys of the vault.
#[derive(Debug)]
pub(crate) enum KeyView {
    Usable { in_use: Vec<KeyId>, primary: Option<KeyId> },
    Missing(KeyId),
    Wrong(KeyId),
    Hidden(String),
}

/// Whether the provisioner could connect.
#[derive(Debug)]
pub(crate) enum ServerAccess {
    Open,
    /// Set-up has not ended, and no operation sets it up now.
    NotReady,
    /// Nothing was connected to.
    Untrusted(String),
    Unreachable(String),
    /// The server refuses the stored password, or the session does not act as the admin role.
    Refused(String),
    /// The vault has no password, or it does not open.
    NoSecret(String),
    /// Another cluster answers at this address.
    Replaced(String),
}

/// One server.
pub(crate) struct ServerView {
    pub(crate) installation: Uuid,
    pub(crate) server: DatabaseServer,
    pub(crate) access: ServerAccess,
    /// Why the login that is not in use cannot connect.
    pub(crate) idle_login: Result<(), String>,
    /// The rest is empty unless `access` is `Open`.
    pub(crate) facts: Option<ServerFacts>,
    /// The server's clock minus the landlord's, in seconds, and half of the round trip.
    pub(crate) skew: Option<(f64, f64)>,
    pub(crate) databases: HashMap<String, ObservedDatabase>,
    pub(crate) roles: HashMap<String, ObservedRole>,
    /// Roles that may enter each database.
    pub(crate) entrants: HashMap<String, Vec<String>>,
    pub(crate) blockers: Vec<Blocker>,
    pub(crate) holders: Vec<Holder>,
    /// Logins of open operations, which are expected for the time being.
    pub(crate) temporary_logins: Vec<RoleName>,
    /// Databases and roles that no placement has named. Filled after the last placement was read.
    pub(crate) unplaced_databases: Vec<String>,
    pub(crate) unplaced_roles: Vec<String>,
}

/// One tenant, with its server if it is placed on one that answered.
pub(crate) struct TenantView<'a> {
    pub(crate) now: OffsetDateTime,
    /// `None` for a placement without a tenant.
    pub(crate) tenant: Option<Tenant>,
    pub(crate) placement: Option<Placement>,
    pub(crate) names: Option<TenantNames>,
    pub(crate) entries: Vec<TenantDatabase>,
    pub(crate) users: Vec<DatabaseUser>,
    /// Whether an operation of the tenant is open and parked. Tenants with a running one are not examined.
    pub(crate) parked: Option<OperationId>,
    pub(crate) secret: Seen<SecretView>,
    pub(crate) server: Option<&'a ServerView>,
    /// Rows of the query in the tenant's database, as the provisioner.
    pub(crate) objects: Seen<Vec<ObservedObject>>,
    /// A session of the application's login.
    pub(crate) login: Seen<LoginView>,
    /// Database name of the tenant in the application's second registry.
    pub(crate) second_source: Option<String>,
}

/// The stored password of the entry's login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretView {
    Opens,
    Missing,
    DoesNotOpen,
}

/// What a session of the application's login has shown.
#[derive(Debug)]
pub(crate) enum LoginView {
    /// The server refused the login, with this SQLSTATE.
    Refused(String),
    Entered {
        /// `current_user`.
        acts_as: String,
        database: String,
        /// `None` if this program has no migrations.
        migrations: Option<MigrationStatus>,
        sequences: Vec<ObservedSequence>,
    },
}

impl ServerView {
    pub(crate) fn name(&self) -> &ServerName {
        &self.server.name
    }
}
