//! What the doctor's queries read on a PostgreSQL server: one type for each query.
//!
//! [`observe`](super) fills them. The doctor's checks compare them with the landlord. They hold no secret and no text of
//! a statement.
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use time::OffsetDateTime;

/// Facts about a whole cluster, as the provisioner sees them.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct ServerFacts {
    /// `server_version_num`.
    pub(crate) version: i32,
    /// The server's clock when it answered.
    pub(crate) clock: OffsetDateTime,
    pub(crate) is_in_recovery: bool,
    /// `default_transaction_read_only` of a session that does not set it.
    pub(crate) is_read_only: bool,
    pub(crate) max_connections: i32,
    /// `superuser_reserved_connections` and, from PostgreSQL 16 on, `reserved_connections`.
    pub(crate) reserved_connections: i32,
    /// Whether this session is encrypted.
    pub(crate) uses_tls: bool,
    /// Whether the provisioner has `pg_read_all_stats`. Without it the state of other sessions is hidden.
    pub(crate) can_see_sessions: bool,
    /// Whether PUBLIC may connect to the maintenance database.
    pub(crate) is_maintenance_public: bool,
    /// Encoding and locale that new databases get, in one text.
    pub(crate) locale: String,
}

/// A database of the cluster. `template0`, `template1`, `postgres` and the maintenance database are left out.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct ObservedDatabase {
    pub(crate) name: String,
    /// `None` if the owner's role does not exist any more.
    pub(crate) owner: Option<String>,
    /// `datallowconn`.
    pub(crate) is_open: bool,
    /// CONNECTION LIMIT; [`INVALID`] if an interrupted DROP DATABASE has left it invalid.
    pub(crate) connection_limit: i32,
    pub(crate) comment: Option<String>,
    pub(crate) collation_version: Option<String>,
    pub(crate) actual_collation_version: Option<String>,
    /// Whether it has a login event trigger (PostgreSQL 17 and later). The doctor does not enter such a database,
    /// because the trigger would run with the provisioner's rights.
    pub(crate) has_login_trigger: bool,
    /// Rights of other roles than the owner, as `<role>/<privilege>`, sorted. Empty if the admin role is not the owner.
    pub(crate) grants: Vec<String>,
}

/// CONNECTION LIMIT of a database that an interrupted DROP DATABASE has left invalid. Nothing can connect to it.
pub(crate) const INVALID: i32 = -2;

/// A membership of a role in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    pub(crate) group: String,
    pub(crate) grantor: Option<String>,
    pub(crate) admin: bool,
    /// Always true on PostgreSQL 15.
    pub(crate) inherit: bool,
    /// Always true on PostgreSQL 15.
    pub(crate) set: bool,
}

/// A role whose name or comment, or whose membership in the admin role or in a tenant's role, makes it relevant for this
/// installation.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct ObservedRole {
    pub(crate) name: String,
    pub(crate) can_login: bool,
    /// Those of SUPERUSER, CREATEROLE, CREATEDB, REPLICATION and BYPASSRLS that it has.
    pub(crate) privileges: Vec<String>,
    pub(crate) connection_limit: i32,
    /// Whether its VALID UNTIL has passed.
    pub(crate) is_expired: bool,
    pub(crate) comment: Option<String>,
    /// Whether the admin role has the ADMIN option on it. Always true on PostgreSQL 15.
    pub(crate) is_ours: bool,
    #[sqlx(json)]
    pub(crate) memberships: Vec<Membership>,
    /// Settings as `name=value`, or `<database>: name=value` for a setting in one database.
    pub(crate) settings: Vec<String>,
    /// Rights on databases that were granted to the role itself, as `<database>/<privilege>`. `OWNER` stands for a
    /// database that the role owns. Those of the admin role as owner are left out.
    pub(crate) database_rights: Vec<String>,
    /// Its sessions in all databases.
    pub(crate) sessions: i64,
}

/// A role that can log in and may connect to an open database of the admin role. The name `PUBLIC` stands for all.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Entrant {
    pub(crate) database: String,
    pub(crate) role: String,
}

/// A session that blocks others.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Blocker {
    pub(crate) pid: i32,
    pub(crate) database: Option<String>,
    pub(crate) login: Option<String>,
    pub(crate) application: Option<String>,
    /// `None` if this role may not see it.
    pub(crate) state: Option<String>,
    /// Begin of the session; `None` if this role may not see it.
    pub(crate) started_at: Option<OffsetDateTime>,
    /// Begin of its transaction; `None` if it has none, or if this role may not see it.
    pub(crate) transaction_at: Option<OffsetDateTime>,
    pub(crate) idle_seconds: Option<f64>,
    pub(crate) waiters: i64,
    /// First words of the statements that wait, for example `UPDATE`; `?` if hidden.
    pub(crate) waiting_statements: Vec<String>,
    /// Whether this role may terminate the session.
    pub(crate) can_signal: bool,
}

/// A prepared transaction in a database of ours, or a replication slot.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Holder {
    /// `prepared` or `slot`.
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) owner: Option<String>,
    pub(crate) database: Option<String>,
    pub(crate) age_seconds: Option<f64>,
    pub(crate) held_bytes: Option<i64>,
    pub(crate) is_active: bool,
    pub(crate) wal_status: Option<String>,
}

/// A row of the query in a tenant's database. `kind` is one of the texts in `tenant.sql`.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct ObservedObject {
    pub(crate) kind: String,
    pub(crate) object: String,
    pub(crate) role: Option<String>,
}

/// A sequence, as the application's login sees it.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct ObservedSequence {
    pub(crate) sequence: String,
    pub(crate) increment: i64,
    /// `None` if it was never used, or if `is_hidden`.
    pub(crate) last_value: Option<i64>,
    /// Whether the login may not read it.
    pub(crate) is_hidden: bool,
    pub(crate) smallest: i64,
    /// The smaller one of its maximum and the largest value of its column's type.
    pub(crate) largest: i64,
}

impl ObservedSequence {
    /// How much of the range is used, from 0 to 1. `None` if that is not known.
    pub(crate) fn used(&self) -> Option<f64> {
        let (last, range) = (self.last_value?, (self.largest as f64) - (self.smallest as f64));
        let done =
            if self.increment > 0 { last as f64 - self.smallest as f64 } else { self.largest as f64 - last as f64 };
        (range > 0.0).then_some(done / range)
    }
}
