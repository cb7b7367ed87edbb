//! The error of a caller of `TenantPool` that got no connection.
//!
//! sqlx's traits can only return `sqlx::Error`, so every [`AcquireError`] travels inside `sqlx::Error::Io`. Web layers
//! call [`AcquireError::find`] to choose a status and [`AcquireError::retry_after`] for the header.
use crate::error::ResolveError;
use std::io::ErrorKind;
use std::time::Duration;

/// The reason for which a caller got no connection. Queries can only return `sqlx::Error`, so this error is wrapped in
/// `sqlx::Error::Io`; [`find`](Self::find) extracts it.
///
/// ```
/// use std::time::Duration;
/// use tenantry::pool::AcquireError;
///
/// fn status(error: &sqlx::Error) -> u16 {
///     match AcquireError::find(error) {
///         Some(reason) if reason.retry_after().is_some() => 503,
///         Some(_) => 502,
///         None => 500,
///     }
/// }
/// assert_eq!(status(&sqlx::Error::RowNotFound), 500);
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcquireError {
    /// For the whole time, every connection of the server's budget was in use, or the tenant was at its cap
    /// (`max_connections_per_tenant`).
    #[error(
        "waited {waited:?} for a connection: the server's or the tenant's connection limit is reached; retry later, or \
         raise max_connections or max_connections_per_tenant"
    )]
    #[non_exhaustive]
    PoolExhausted {
        /// How long the caller waited.
        waited: Duration,
    },
    /// For the whole time, as many other connections to the server were being opened as may be at once (`max_opening`).
    #[error("waited {waited:?} to open a connection: too many others to this server are being opened; retry later")]
    #[non_exhaustive]
    ConnectQueue {
        /// How long the caller waited.
        waited: Duration,
    },
    /// The server accepted no connection in time, or the pool is one that the application created and it timed out.
    #[error("waited {waited:?} for the server to accept a connection; check that it is up and has free connections")]
    #[non_exhaustive]
    ConnectTimeout {
        /// How long the caller waited.
        waited: Duration,
    },
    /// The tenant's login has as many sessions as its CONNECTION LIMIT allows. PostgreSQL counts the sessions of all
    /// nodes and of every other client that knows the password. If the sessions belong to an unknown client, rotate the
    /// login. If they belong to this installation's nodes, raise [`Builder::max_nodes`](crate::Builder::max_nodes).
    #[error(
        "waited {waited:?} for a connection: the tenant's login has {sessions} sessions and its CONNECTION LIMIT is \
         {limit}; pg_stat_activity shows their addresses; rotate the login or raise max_nodes"
    )]
    #[non_exhaustive]
    LoginLimit {
        /// How long the caller waited.
        waited: Duration,
        /// The login's CONNECTION LIMIT.
        limit: i32,
        /// Sessions of the login when they were counted, up to a second ago.
        sessions: i64,
    },
    /// The handle's connections were closed or its login was refused, and resolving the tenant again failed, for
    /// example because the tenant was suspended. The source says why.
    #[error("no connection for the tenant: it could not be resolved again")]
    Refused(#[source] ResolveError),
    /// The resolver, or the pool that the application created, is closed. The handle will not work again.
    #[error("no connection for the tenant: the resolver or its pool is closed")]
    Closed,
}

impl AcquireError {
    /// The `AcquireError` inside an error that a query returned; `None` if the error is another one.
    pub fn find(error: &sqlx::Error) -> Option<&AcquireError> {
        match error {
            sqlx::Error::Io(io) => io.get_ref()?.downcast_ref(),
            _ => None,
        }
    }
    /// How long to wait before the same call may succeed. `None`: a retry will not help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::PoolExhausted { .. }
            | Self::ConnectQueue { .. }
            | Self::ConnectTimeout { .. }
            | Self::LoginLimit { .. } => Some(Duration::from_secs(1)),
            Self::Refused(error) => error.retry_after(),
            Self::Closed => None,
        }
    }
    /// A [`PoolExhausted`](Self::PoolExhausted), for tests of an application's error responses.
    #[cfg(feature = "testing")]
    pub fn budget(waited: Duration) -> Self {
        Self::PoolExhausted { waited }
    }
    /// A [`ConnectTimeout`](Self::ConnectTimeout), for tests of an application's error responses.
    #[cfg(feature = "testing")]
    pub fn server(waited: Duration) -> Self {
        Self::ConnectTimeout { waited }
    }
}

impl From<AcquireError> for sqlx::Error {
    fn from(error: AcquireError) -> Self {
        let kind = match error {
            AcquireError::PoolExhausted { .. }
            | AcquireError::ConnectQueue { .. }
            | AcquireError::ConnectTimeout { .. }
            | AcquireError::LoginLimit { .. } => ErrorKind::TimedOut,
            AcquireError::Refused(_) => ErrorKind::PermissionDenied,
            AcquireError::Closed => ErrorKind::NotConnected,
        };
        sqlx::Error::Io(std::io::Error::new(kind, error))
    }
}

/// The error of a handle whose tenant could not be resolved again.
impl From<ResolveError> for AcquireError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Closed => Self::Closed,
            error => Self::Refused(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    #[test]
    fn find_extracts_the_acquire_error_from_a_sqlx_error() {
        let error: sqlx::Error = AcquireError::ConnectTimeout { waited: Duration::from_secs(3) }.into();
        assert!(matches!(AcquireError::find(&error), Some(AcquireError::ConnectTimeout { .. })));
        assert!(AcquireError::find(&sqlx::Error::PoolTimedOut).is_none());
        let refused = AcquireError::from(ResolveError::Unknown);
        assert!(refused.source().is_some_and(|s| s.downcast_ref::<ResolveError>().is_some()));
    }

    #[test]
    fn retry_after_is_set_for_temporary_errors_only() {
        assert!(AcquireError::ConnectTimeout { waited: Duration::ZERO }.retry_after().is_some());
        assert!(AcquireError::Closed.retry_after().is_none());
        assert!(AcquireError::from(ResolveError::Unknown).retry_after().is_none());
    }
}
