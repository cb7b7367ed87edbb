//! Connection limits of logins, read and set on a worker's session. Rotation and the daily check of limits use it.
//! A login that cannot be altered never fails the call; it is counted and tried again at the next check.
use super::LockedSession;
use crate::cluster::pg::limits;
use crate::error::StepError;
use crate::names::RoleName;
use crate::server::LoginSessions;

/// Number of logins that got a new connection limit, and of those that could not get it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LimitCounts {
    /// Logins whose limit was altered.
    pub(crate) changed: u32,
    /// Logins that could not be altered now.
    pub(crate) left: u32,
}

impl LockedSession {
    /// Sets this connection limit on those of these logins that exist with another one. LOGIN and NOLOGIN stay as they
    /// are. A login that cannot be altered now is logged and counted.
    pub(crate) async fn limit_logins(&mut self, logins: &[RoleName], limit: i32) -> Result<LimitCounts, StepError> {
        let mut counts = LimitCounts::default();
        for login in limits::find_differing(&mut self.session, logins, limit).await? {
            match limits::set_limit(&mut self.session, login, limit).await? {
                None => counts.changed += 1,
                Some(error) => {
                    tracing::warn!(%login, limit, %error, "cannot set a login's connection limit; will be retried");
                    counts.left += 1;
                }
            }
        }
        Ok(counts)
    }

    /// The connection limit of a login and its number of sessions; `None` if the login does not exist.
    pub(crate) async fn login_sessions(&mut self, login: &str) -> Result<Option<LoginSessions>, StepError> {
        Ok(limits::read_login_sessions(&mut self.session, login).await?)
    }
}
