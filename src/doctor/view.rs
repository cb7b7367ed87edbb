//! What the checks compare: the state of the landlord, of a server, and of a tenant, as one examination has read it.
//!
//! `observe` fills these types, and the pure functions in `checks` read them. A part that could not be read is an
//! explicit variant and never an empty list, so that a check cannot take it for healthy.
use super::code::Code;
use super::finding::Draft;
use crate::cluster::MigrationStatus;
use crate::cluster::pg::observe::{
    Blocker, Holder, ObservedDatabase, ObservedObject, ObservedRole, ObservedSequence, ServerFacts,
};
use crate::directory::{AppAccess, DatabaseKind, DatabaseStatus, DatabaseUser, TenantDatabase};
use crate::error::UnreadableRow;
use crate::names::{RoleName, ServerName, TenantNames};
use crate::operation::Subject;
use crate::secret::KeyId;
use crate::server::DatabaseServer;
use crate::store::journal::Record;
use crate::store::registry::{Placement, Retirement};
use crate::tenant::{Tenant, TenantId, TenantStatus};
use sqlx::migrate::Migrator;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};
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
    /// Why it could not be read.
    pub(crate) fn hidden(&self) -> Option<&str> {
        match self {
            Self::Hidden(reason) => Some(reason),
            _ => None,
        }
    }
}

/// The landlord.
pub(crate) struct LandlordView {
    pub(crate) installation: Uuid,
    pub(crate) now: OffsetDateTime,
    pub(crate) keys: KeyView,
    /// The open operations.
    pub(crate) operations: Vec<Record>,
    /// The retiring logins that may be overdue.
    pub(crate) retiring: Vec<Retirement>,
    /// Number of further ones that were not kept.
    pub(crate) more_retiring: u64,
    pub(crate) live_nodes: u32,
    pub(crate) blockers: Seen<Vec<Blocker>>,
    pub(crate) unreadable: Vec<UnreadableRow>,
    pub(crate) clock: Clock,
}

/// The landlord's clock, read at a moment of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What the landlord's clock showed.
    pub(crate) time: OffsetDateTime,
    /// When this process read it: the middle between the question and the answer.
    pub(crate) at: Instant,
    /// Half of the time between the question and the answer: the clock may have been read as much earlier or later.
    pub(crate) tolerance: Duration,
    /// What this process's own clock showed at that moment.
    pub(crate) node_time: OffsetDateTime,
}

impl Clock {
    /// How far this process's clock is ahead of the landlord's.
    pub(crate) fn node_skew(&self) -> Skew {
        let seconds = (self.node_time - self.time).as_seconds_f64();
        Skew { seconds, tolerance: self.tolerance.as_secs_f64() }
    }
    /// How far another clock is ahead of the landlord's. It showed `time` between `asked` and `took` later.
    pub(crate) fn skew_of(&self, time: OffsetDateTime, asked: Instant, took: Duration) -> Skew {
        let middle = (asked + took / 2).saturating_duration_since(self.at);
        let seconds = (time - self.time).as_seconds_f64() - middle.as_secs_f64();
        Skew { seconds, tolerance: self.tolerance.as_secs_f64() + took.as_secs_f64() / 2.0 }
    }
}

/// The difference between two clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Skew {
    /// Seconds by which the clock is ahead of the landlord's.
    pub(crate) seconds: f64,
    /// Seconds that the clock may differ only because of the time that the answers took.
    pub(crate) tolerance: f64,
}

/// All servers that answered, to be compared with each other.
pub(crate) struct FleetView {
    pub(crate) servers: Vec<FleetServer>,
    pub(crate) live_nodes: u32,
    /// How far this process's clock is ahead of the landlord's.
    pub(crate) node_skew: Skew,
}

/// What of a server is compared with others.
pub(crate) struct FleetServer {
    pub(crate) server: DatabaseServer,
    pub(crate) facts: ServerFacts,
    pub(crate) system_identifier: Option<i64>,
    pub(crate) skew: Option<Skew>,
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
    Untrusted,
    Unreachable(String),
    /// The server refuses the stored password, or the session does not act as the admin role.
    Refused(String),
    /// The vault has no password, or it does not open.
    NoSecret(String),
    /// Another cluster answers at this address.
    Replaced(String),
}

impl ServerAccess {
    /// Why nothing was read from the server.
    pub(crate) fn obstacle(&self) -> &str {
        match self {
            Self::Open => "the server was read",
            Self::NotReady => "the set-up of the server has not ended",
            Self::Untrusted => "the server's address is not authenticated or not allowed",
            Self::Unreachable(reason) | Self::Refused(reason) | Self::NoSecret(reason) | Self::Replaced(reason) => {
                reason
            }
        }
    }
}

/// One server.
pub(crate) struct ServerView {
    pub(crate) installation: Uuid,
    pub(crate) server: DatabaseServer,
    pub(crate) access: ServerAccess,
    /// Whether the login that is not in use can connect. Not applicable to an examination of a single tenant.
    pub(crate) idle_login: Seen<()>,
    /// Whether the caller gave an admin's connection to this server.
    pub(crate) has_admin: bool,
    /// The rest is empty unless `access` is `Open`.
    pub(crate) facts: Option<ServerFacts>,
    pub(crate) system_identifier: Option<i64>,
    /// How far the server's clock is ahead of the landlord's.
    pub(crate) skew: Option<Skew>,
    pub(crate) databases: BTreeMap<String, ObservedDatabase>,
    pub(crate) roles: BTreeMap<String, ObservedRole>,
    /// Roles that may enter each database.
    pub(crate) entrants: HashMap<String, Vec<String>>,
    pub(crate) blockers: Vec<Blocker>,
    pub(crate) holders: Vec<Holder>,
    /// Logins of open operations, which are expected for the time being.
    pub(crate) temporary_logins: Vec<RoleName>,
    /// Databases and roles that no placement names. Empty until the last placement was read.
    pub(crate) unplaced_databases: Vec<String>,
    pub(crate) unplaced_roles: Vec<String>,
    /// Roles that other servers of this landlord have as admin role or as provisioner's login. Two servers of a landlord
    /// may be the same cluster.
    pub(crate) neighbours: Vec<RoleName>,
}

impl ServerView {
    /// A view of a server from which nothing was read yet.
    pub(crate) fn new(installation: Uuid, server: DatabaseServer, access: ServerAccess) -> Self {
        Self {
            installation,
            server,
            access,
            idle_login: Seen::NotApplicable,
            has_admin: false,
            facts: None,
            system_identifier: None,
            skew: None,
            databases: BTreeMap::new(),
            roles: BTreeMap::new(),
            entrants: HashMap::new(),
            blockers: vec![],
            holders: vec![],
            temporary_logins: vec![],
            unplaced_databases: vec![],
            unplaced_roles: vec![],
            neighbours: vec![],
        }
    }
    pub(crate) fn name(&self) -> &ServerName {
        &self.server.name
    }
    /// Whether the server's catalogs were read.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.access, ServerAccess::Open)
    }
    /// Whether the admin role owns this database.
    pub(crate) fn owns(&self, database: &ObservedDatabase) -> bool {
        database.owner.as_deref() == Some(self.server.names.admin.as_str())
    }
    /// Whether the admin role can revoke this membership: it has granted it, or the server does not record grantors.
    pub(crate) fn can_revoke(&self, grantor: Option<&str>) -> bool {
        let records_grantors = self.facts.as_ref().is_none_or(|facts| facts.version >= 160_000);
        !records_grantors || grantor == Some(self.server.names.admin.as_str())
    }
    /// Whether this role is one of those that may enter every database: the provisioner's logins, the roles that the
    /// application allows, and the logins of open operations.
    pub(crate) fn is_exempt(&self, role: &str) -> bool {
        let names = &self.server.names;
        let own = [&names.blue, &names.green].into_iter();
        own.chain(&self.server.allowed_roles).chain(&self.temporary_logins).any(|exempt| exempt.as_str() == role)
    }
    pub(crate) fn draft(&self, code: Code) -> Draft {
        Draft::new(code, Subject::Server(self.server.name.clone()))
    }
}

/// One tenant, with its server if it is placed on one.
pub(crate) struct TenantView<'a> {
    pub(crate) now: OffsetDateTime,
    pub(crate) id: TenantId,
    /// `None` for a placement without a tenant.
    pub(crate) tenant: Option<Tenant>,
    pub(crate) placement: Option<Placement>,
    /// The names that derive from the placement or, without one, from the primary entry.
    pub(crate) names: Option<TenantNames>,
    pub(crate) entries: Vec<TenantDatabase>,
    pub(crate) users: Vec<DatabaseUser>,
    /// The parked operation of the tenant; of two, the one in the lane of changes. Follow-up work does not count, and
    /// tenants with a running operation are not examined.
    pub(crate) parked: Option<Record>,
    /// Whether an operation that changes the tenant is open, also one that waits for its next attempt.
    pub(crate) has_open_operation: bool,
    pub(crate) secret: Seen<SecretView>,
    /// The server of the placement or, without one, of the primary entry.
    pub(crate) server: Option<&'a ServerView>,
    /// Rows of the query in the tenant's database, as the provisioner.
    pub(crate) objects: Seen<Vec<ObservedObject>>,
    /// A session of the application's login.
    pub(crate) login: Seen<LoginView>,
    /// The primary entry in the application's second registry.
    pub(crate) second: Seen<Option<TenantDatabase>>,
}

/// The stored password of the entry's login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretView {
    Opens,
    Missing,
    /// The record is damaged, or belongs to another id.
    DoesNotOpen,
    /// The key provider lacks the key, or has another one of that name.
    NeedsKey(KeyId),
}

/// What a session of the application's login has shown.
#[derive(Debug)]
pub(crate) enum LoginView {
    /// The server refused the login, with this SQLSTATE.
    Refused(String),
    Entered {
        /// `current_user`.
        acts_as: String,
        /// `None` if this program has no migrations.
        migrations: Option<MigrationStatus>,
        sequences: Seen<Vec<ObservedSequence>>,
    },
}

impl TenantView<'_> {
    pub(crate) fn status(&self) -> Option<TenantStatus> {
        self.tenant.as_ref().map(Tenant::status)
    }
    pub(crate) fn is(&self, status: TenantStatus) -> bool {
        self.status() == Some(status)
    }
    /// Whether the tenant has a database that must exist.
    pub(crate) fn has_database(&self) -> bool {
        use TenantStatus::{Active, Archived, Suspended};
        matches!(self.status(), Some(Active | Suspended | Archived))
    }
    /// The tenant's primary entry.
    pub(crate) fn primary(&self) -> Option<&TenantDatabase> {
        self.entries.iter().find(|entry| entry.kind == DatabaseKind::Primary)
    }
    /// The primary entry, if it is active and names the database of the placement. Entries of status `Fallback` and
    /// entries without a server are not managed.
    pub(crate) fn managed_entry(&self) -> Option<&TenantDatabase> {
        let placement = self.placement.as_ref()?;
        self.primary().filter(|entry| {
            entry.status == DatabaseStatus::Active
                && entry.server.as_ref() == Some(&placement.server)
                && entry.database == placement.database
        })
    }
    /// The server, if its catalogs were read.
    pub(crate) fn open_server(&self) -> Option<&ServerView> {
        self.server.filter(|server| server.is_open())
    }
    /// The database on the server.
    pub(crate) fn database(&self) -> Option<&ObservedDatabase> {
        self.open_server()?.databases.get(self.names.as_ref()?.database.as_str())
    }
    /// A role on the server.
    pub(crate) fn role(&self, name: &RoleName) -> Option<&ObservedRole> {
        self.open_server()?.roles.get(name.as_str())
    }
    /// Whether the name is that of a login of this tenant, whatever its generation is.
    pub(crate) fn is_login_name(&self, role: &str) -> bool {
        self.names.as_ref().is_some_and(|names| names.generation_of(role).is_some())
    }
    /// A finding about the tenant. Its fingerprint covers the tenant's status and the generation of its entry.
    pub(crate) fn draft(&self, code: Code) -> Draft {
        let mut draft = Draft::new(code, Subject::Tenant(self.id));
        if let Some(tenant) = &self.tenant {
            draft = draft.of_tenant(tenant.slug()).seen("status", tenant.status());
        }
        match self.primary() {
            Some(entry) => draft.seen("generation", entry.generation),
            None => draft,
        }
    }
}
