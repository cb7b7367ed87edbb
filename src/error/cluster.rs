//! The error of a statement or a check on a PostgreSQL server that holds tenant databases.
//!
//! The cluster layer returns it to the steps. `From<ClusterError> for StepError` decides by
//! [`ClusterError::is_transient`] whether a step is retried or fails.
use super::{StepError, UntrustedAddress};
use crate::sqlstate;
use std::time::Duration;

/// The reason why work on a PostgreSQL server failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// A role or database has the name that the operation wants to use, but the operation did not create it. It is
    /// reported and never changed.
    #[error("the {kind} {name:?} already exists and was not created by this operation; rename or remove it")]
    #[non_exhaustive]
    Foreign {
        /// `role` or `database`.
        kind: &'static str,
        /// Name of the role or database.
        name: String,
    },
    /// A role or database that the operation needs does not exist.
    #[error("the {kind} {name:?} does not exist on the server; restore it, or purge the tenant")]
    #[non_exhaustive]
    Missing {
        /// `role` or `database`.
        kind: &'static str,
        /// Name of the role or database.
        name: String,
    },
    /// The admin role does not own a tenant's database, so it cannot close, open or drop it.
    #[error(
        "the database {database:?} belongs to the role {owner:?}; run as a superuser: \
         ALTER DATABASE \"{database}\" OWNER TO \"{admin}\""
    )]
    #[non_exhaustive]
    WrongOwner {
        /// Name of the database.
        database: String,
        /// The role that owns it.
        owner: String,
        /// The admin role, which must own it.
        admin: String,
    },
    /// A role of a tenant is a superuser or has CREATEROLE, so it could grant itself access again.
    #[error(
        "the tenant's role {role:?} has more rights than a tenant may have; run as a superuser: \
             ALTER ROLE \"{role}\" NOSUPERUSER NOCREATEROLE"
    )]
    #[non_exhaustive]
    Privileged {
        /// The tenant's role.
        role: String,
    },
    /// The admin role cannot set NOLOGIN on a login of a tenant, because it lacks the ADMIN option on that role.
    #[error(
        "the role {role:?} cannot be managed by {admin:?}; run as a superuser: \
             GRANT \"{role}\" TO \"{admin}\" WITH ADMIN OPTION"
    )]
    #[non_exhaustive]
    Unmanaged {
        /// The tenant's login.
        role: String,
        /// The admin role.
        admin: String,
    },
    /// A session holds a lock on the catalog row of a login, so that the login cannot be set to NOLOGIN or dropped.
    #[error(
        "another session holds a lock on the role {role:?}; tenantry terminates that session if it is the tenant's and \
         retries, otherwise end it yourself"
    )]
    #[non_exhaustive]
    LockedLogin {
        /// The login whose row is locked.
        role: String,
    },
    /// Roles can still connect to a tenant's database after it was closed.
    #[error(
        "the roles {roles} can still connect to the database {database:?}; revoke CONNECT or the membership that \
         grants it, or allow the role by servers().allow_role()"
    )]
    #[non_exhaustive]
    StillOpen {
        /// Name of the database.
        database: String,
        /// The roles, or `PUBLIC`.
        roles: String,
    },
    /// A role cannot be dropped because it still owns objects or has grants in other databases.
    #[error(
        "the role {role:?} cannot be dropped: {detail}; run in each of these databases as a superuser: \
             DROP OWNED BY \"{role}\""
    )]
    #[non_exhaustive]
    Dependent {
        /// The role that was to be dropped.
        role: String,
        /// PostgreSQL's DETAIL message, in the server's language. It lists the databases and the number of objects.
        detail: String,
    },
    /// A tenant database has an event trigger that would run its function with the provisioner's rights. Nothing was
    /// changed in that database.
    #[error(
        "the event trigger {trigger:?} in the database {database:?} would run with the provisioner's rights; \
             disable it there: ALTER EVENT TRIGGER \"{trigger}\" DISABLE"
    )]
    #[non_exhaustive]
    EventTrigger {
        /// Name of the tenant database.
        database: String,
        /// Name of the event trigger.
        trigger: String,
    },
    /// A connection could not be opened.
    #[error("{role} cannot connect to the database {database} at {host}:{port}")]
    #[non_exhaustive]
    Connect {
        /// The login role.
        role: String,
        /// Host name or address of the server.
        host: String,
        /// TCP port of the server.
        port: u16,
        /// Name of the database.
        database: String,
        /// The error of the connection attempt.
        source: sqlx::Error,
    },
    /// The server did not answer within the time limit.
    #[error("{phase} took longer than {limit:?}")]
    #[non_exhaustive]
    Deadline {
        /// A description of the work that took too long.
        phase: &'static str,
        /// The time limit.
        limit: Duration,
    },
    /// Another worker holds the advisory lock of the tenant or server.
    #[error("the advisory lock is held by {by}; this operation is retried")]
    #[non_exhaustive]
    Locked {
        /// Process id and application name of the holder.
        by: String,
    },
    /// Another session has the lock that sqlx's `Migrator` takes while it migrates the database. Either it migrates the
    /// database now, or it is left from a migration that failed or was cancelled.
    #[error(
        "the migrations of the database {database:?} are locked by {by}; wait until that migration has ended, or end the \
         session by pg_terminate_backend, then call again"
    )]
    #[non_exhaustive]
    MigrationLocked {
        /// Name of the database.
        database: String,
        /// Process id, user and application name of the session, and since when it has been connected and idle.
        by: String,
    },
    /// It could not be confirmed that a standby refuses the tenant. The primary already refuses it. The operation is
    /// retried until the standby answers, or until its directory entry is `Dropped`.
    #[error(
        "the primary refuses the tenant, but the standby at {host}:{port} could not be checked; make the standby \
         reachable, or set its directory entry to `Dropped`"
    )]
    #[non_exhaustive]
    Standby {
        /// Host name or address of the standby.
        host: String,
        /// TCP port of the standby.
        port: u16,
        /// The error of the check on the standby.
        source: Box<ClusterError>,
    },
    /// Another session holds a lock that a statement of a set-up needs, and has kept it for several seconds.
    #[error(
        "{phase} waits for a lock of {by}; end that transaction, or its session with pg_terminate_backend(), then call \
         again"
    )]
    #[non_exhaustive]
    Blocked {
        /// A description of what the statement does.
        phase: &'static str,
        /// Process id, user, application and begin of the transaction of each session that holds the lock.
        by: String,
    },
    /// Sessions use the database, and the provisioner has no right to terminate them.
    #[error(
        "the database {database} is in use by {by}; end these sessions, then this operation succeeds at its next retry"
    )]
    #[non_exhaustive]
    InUse {
        /// Name of the database.
        database: String,
        /// Process ids and users of the sessions.
        by: String,
    },
    /// A login can connect, but its session runs as the wrong role or in the wrong database.
    #[error("the login {login} runs as {found} in the database {database}, not as {expected}")]
    #[non_exhaustive]
    Identity {
        /// The login role.
        login: String,
        /// The `current_user` of the session.
        found: String,
        /// The `current_user` that the session should have.
        expected: String,
        /// The `current_database()` of the session.
        database: String,
    },
    /// The landlord has an address to which this process sends no password.
    #[error("the address in the landlord is not trusted")]
    Untrusted(#[from] UntrustedAddress),
    /// A statement failed.
    #[error("{phase} failed")]
    #[non_exhaustive]
    Sql {
        /// A description of what the statement does.
        phase: &'static str,
        /// The error of the statement.
        source: sqlx::Error,
    },
}

impl ClusterError {
    pub(crate) fn sql(phase: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Sql { phase, source }
    }
    /// Whether the same operation may succeed later without a change in its request: either the cause is temporary, or
    /// an administrator can remove what the error names.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { source, .. } | Self::Sql { source, .. } => sqlstate::is_transient(source),
            Self::Deadline { .. } | Self::Locked { .. } | Self::InUse { .. } | Self::Standby { .. } => true,
            // An administrator has to remove these. The operation is retried until that has happened.
            Self::WrongOwner { .. }
            | Self::Privileged { .. }
            | Self::Unmanaged { .. }
            | Self::LockedLogin { .. }
            | Self::StillOpen { .. }
            | Self::Dependent { .. }
            | Self::EventTrigger { .. } => true,
            Self::Foreign { .. } | Self::Missing { .. } | Self::Identity { .. } | Self::Untrusted(_) => false,
            // The wait for the lock was bounded already; the caller decides whether to end its holder.
            Self::MigrationLocked { .. } => false,
            // A set-up has retried it already, and its caller waits.
            Self::Blocked { .. } => false,
        }
    }
}

impl From<ClusterError> for StepError {
    fn from(error: ClusterError) -> Self {
        if error.is_transient() { Self::retry(error) } else { Self::fail(error) }
    }
}
