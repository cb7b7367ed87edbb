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
    #[error("the standby at {host}:{port} is not known to refuse it; the primary does")]
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
    /// Whether the same may succeed later without anybody changing anything here.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { source, .. } | Self::Sql { source, .. } => sqlstate::is_transient(source),
            Self::Deadline { .. } | Self::Locked { .. } | Self::InUse { .. } | Self::Standby { .. } => true,
            Self::Foreign { .. } | Self::Identity { .. } => false,
        }
    }
}

impl From<ClusterError> for StepError {
    fn from(error: ClusterError) -> Self {
        if error.is_transient() { Self::retry(error) } else { Self::fail(error) }
    }
}
