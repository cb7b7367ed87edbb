use super::StepError;
use crate::sqlstate;
use std::time::Duration;

/// What went wrong on a PostgreSQL server while a worker was at it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// A role or database of a name of ours is there, and is not ours: it is reported and never touched.
    #[error("the {kind} {name:?} is there and was not made by this operation; rename or remove it")]
    #[non_exhaustive]
    Foreign {
        /// `role` or `database`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// An object that an operation needs does not exist.
    #[error("the {kind} {name:?} does not exist on the server; restore it, or purge the tenant")]
    #[non_exhaustive]
    Missing {
        /// `role` or `database`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A tenant's database belongs to another role than the admin role, which then cannot close, open or drop it.
    #[error(
        "the database {database:?} belongs to the role {owner:?}; run as a superuser: \
         ALTER DATABASE \"{database}\" OWNER TO \"{admin}\""
    )]
    #[non_exhaustive]
    WrongOwner {
        /// The database.
        database: String,
        /// The role that owns it.
        owner: String,
        /// The admin role, which must own it.
        admin: String,
    },
    /// A role of a tenant is superuser or has CREATEROLE: it could admit itself again.
    #[error(
        "the tenant's role {role:?} has more rights than a tenant may have; run as a superuser: \
             ALTER ROLE \"{role}\" NOSUPERUSER NOCREATEROLE"
    )]
    #[non_exhaustive]
    Privileged {
        /// The role.
        role: String,
    },
    /// The admin role cannot refuse a login of a tenant: it lacks the ADMIN option that the creator of a role has.
    #[error(
        "the role {role:?} cannot be managed by {admin:?}; run as a superuser: \
             GRANT \"{role}\" TO \"{admin}\" WITH ADMIN OPTION"
    )]
    #[non_exhaustive]
    Unmanaged {
        /// The login.
        role: String,
        /// The admin role.
        admin: String,
    },
    /// A session holds the row of a login locked, so that the login gets no NOLOGIN and cannot be dropped.
    #[error(
        "another session keeps the role {role:?} locked, and was told to end if it is the tenant's; this is tried again"
    )]
    #[non_exhaustive]
    LockedLogin {
        /// The login.
        role: String,
    },
    /// Roles that may still connect to a tenant's database after it was shut out.
    #[error(
        "the database {database:?} can still be entered by {roles}; revoke CONNECT or the membership that gives it, \
         or allow the role by servers().allow_role()"
    )]
    #[non_exhaustive]
    StillOpen {
        /// The database.
        database: String,
        /// The roles, or `PUBLIC`.
        roles: String,
    },
    /// Objects or grants in other databases keep a role from being dropped.
    #[error(
        "the role {role:?} cannot be dropped: {detail}; run in each of these databases as a superuser: \
             DROP OWNED BY \"{role}\""
    )]
    #[non_exhaustive]
    Dependent {
        /// The role.
        role: String,
        /// What PostgreSQL says of them, in the server's language: the databases and what is in them.
        detail: String,
    },
    /// An event trigger would run its function with our rights, so nothing is changed in its database.
    #[error(
        "the event trigger {trigger:?} in the database {database:?} would run with the provisioner's rights; \
             disable it there: ALTER EVENT TRIGGER \"{trigger}\" DISABLE"
    )]
    #[non_exhaustive]
    EventTrigger {
        /// The database.
        database: String,
        /// The trigger.
        trigger: String,
    },
    /// No session came about.
    #[error("{role} cannot connect to the database {database} at {host}:{port}")]
    #[non_exhaustive]
    Connect {
        /// As whom.
        role: String,
        /// Where.
        host: String,
        /// Where.
        port: u16,
        /// Into which database.
        database: String,
        /// Why.
        source: sqlx::Error,
    },
    /// Nothing came back in time.
    #[error("{phase} took longer than {limit:?}")]
    #[non_exhaustive]
    Deadline {
        /// While doing what.
        phase: &'static str,
        /// The deadline.
        limit: Duration,
    },
    /// Another worker holds the subject's lock.
    #[error("the lock is held by {by}; it is tried again")]
    #[non_exhaustive]
    Locked {
        /// Process id and application name.
        by: String,
    },
    /// A standby may still let the tenant in; on the primary it is refused. It is tried again until the standby answers, or
    /// until its directory entry is `Dropped`.
    #[error(
        "the standby at {host}:{port} was not seen to refuse the tenant, the primary does; let it answer, or set its \
         directory entry to `Dropped`"
    )]
    #[non_exhaustive]
    Standby {
        /// Where.
        host: String,
        /// Where.
        port: u16,
        /// Why.
        source: Box<ClusterError>,
    },
    /// Sessions that this login may not end are in the way.
    #[error("{database} is in use by {by}; end these sessions, it is tried again")]
    #[non_exhaustive]
    InUse {
        /// Which database.
        database: String,
        /// Process ids and users.
        by: String,
    },
    /// A login works, but not as it should.
    #[error("{login} runs as {found} in {database}, not as {expected}")]
    #[non_exhaustive]
    Identity {
        /// The login.
        login: String,
        /// `current_user` found.
        found: String,
        /// `current_user` expected.
        expected: String,
        /// `current_database()` found.
        database: String,
    },
    /// A statement failed.
    #[error("{phase} failed")]
    #[non_exhaustive]
    Sql {
        /// While doing what.
        phase: &'static str,
        /// Why.
        source: sqlx::Error,
    },
}

impl ClusterError {
    pub(crate) fn sql(phase: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Sql { phase, source }
    }
    /// Whether the same operation may succeed later, by itself or once a person has removed what the error names.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { source, .. } | Self::Sql { source, .. } => sqlstate::is_transient(source),
            Self::Deadline { .. } | Self::Locked { .. } | Self::InUse { .. } | Self::Standby { .. } => true,
            // A person removes these; the operation waits for that and is tried again.
            Self::WrongOwner { .. }
            | Self::Privileged { .. }
            | Self::Unmanaged { .. }
            | Self::LockedLogin { .. }
            | Self::StillOpen { .. }
            | Self::Dependent { .. }
            | Self::EventTrigger { .. } => true,
            Self::Foreign { .. } | Self::Missing { .. } | Self::Identity { .. } => false,
        }
    }
}

impl From<ClusterError> for StepError {
    fn from(error: ClusterError) -> Self {
        if error.is_transient() { Self::retry(error) } else { Self::fail(error) }
    }
}
