use crate::error::ResolveError;
use std::io::ErrorKind;
use std::time::Duration;

/// Why no connection came. Executor calls can only return `sqlx::Error`, so it travels inside one; [`find`](Self::find)
/// gets it out.
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
    /// Every connection of the server's budget was in use, or all that the tenant may have, for the whole time.
    #[error("waited {waited:?} for a connection: all of the budget are in use")]
    #[non_exhaustive]
    PoolExhausted {
        /// For how long.
        waited: Duration,
    },
    /// Too many connections were being opened at once, for the whole time.
    #[error("waited {waited:?} for a connection to be opened: too many are being opened")]
    #[non_exhaustive]
    ConnectQueue {
        /// For how long.
        waited: Duration,
    },
    /// The server let nobody in within the time, or the pool is the host's own and had none.
    #[error("waited {waited:?} for the server to let a connection in")]
    #[non_exhaustive]
    ConnectTimeout {
        /// For how long.
        waited: Duration,
    },
    /// The tenant's login has all the sessions that its CONNECTION LIMIT allows, those of all nodes and of every other
    /// holder of its password counted. Rotate the login if a stranger holds them; raise
    /// [`Builder::max_nodes`](crate::Builder::max_nodes) if the nodes themselves do.
    #[error(
        "waited {waited:?} for a connection: the tenant's login has {sessions} sessions and its CONNECTION LIMIT is \
         {limit}; pg_stat_activity shows their addresses; rotate the login or raise max_nodes"
    )]
    #[non_exhaustive]
    LoginLimit {
        /// For how long.
        waited: Duration,
        /// The limit.
        limit: i32,
        /// The sessions when they were counted.
        sessions: i64,
    },
    /// The handle's connections were closed or its login was refused, and the tenant does not resolve any more: it was
    /// suspended, say.
    #[error("the tenant's connections do not open again")]
    Refused(#[source] ResolveError),
    /// The handle's connections are closed for good: its resolver or its pool is.
    #[error("closed: no connection is opened any more")]
    Closed,
}

impl AcquireError {
    /// The reason inside what a query returned, if that was it.
    pub fn find(error: &sqlx::Error) -> Option<&AcquireError> {
        match error {
            sqlx::Error::Io(io) => io.get_ref()?.downcast_ref(),
            _ => None,
        }
    }
    /// `Some`: the same may succeed, not before this.
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
    /// For tests of what a host answers when its budget is used up.
    #[cfg(feature = "testing")]
    pub fn budget(waited: Duration) -> Self {
        Self::PoolExhausted { waited }
    }
    /// For tests of what a host answers when its server is too busy.
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

/// A tenant that does not resolve, seen from a handle.
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
    fn the_reason_survives_the_only_error_that_an_executor_can_return() {
        let error: sqlx::Error = AcquireError::ConnectTimeout { waited: Duration::from_secs(3) }.into();
        assert!(matches!(AcquireError::find(&error), Some(AcquireError::ConnectTimeout { .. })));
        assert!(AcquireError::find(&sqlx::Error::PoolTimedOut).is_none());
        let refused = AcquireError::from(ResolveError::Unknown);
        assert!(refused.source().is_some_and(|s| s.downcast_ref::<ResolveError>().is_some()));
    }

    #[test]
    fn only_what_may_pass_is_to_be_tried_again() {
        assert!(AcquireError::ConnectTimeout { waited: Duration::ZERO }.retry_after().is_some());
        assert!(AcquireError::Closed.retry_after().is_none());
        assert!(AcquireError::from(ResolveError::Unknown).retry_after().is_none());
    }
}
