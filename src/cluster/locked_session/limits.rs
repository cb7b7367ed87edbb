//! The connection limits of logins, on a worker's session.
use super::LockedSession;
use crate::cluster::pg::limits;
use crate::error::StepError;
use crate::names::RoleName;
use crate::server::LoginSessions;

/// How many of some logins were altered, and how many could not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LimitCounts {
    pub(crate) changed: u32,
    pub(crate) left: u32,
}

impl LockedSession {
    /// Gives those of these logins that have another connection limit this one. Whether a login may log in stays as it is.
    /// A login that cannot be altered now is logged and counted.
    pub(crate) async fn limit_logins(&mut self, logins: &[RoleName], limit: i32) -> Result<LimitCounts, StepError> {
        let mut limited = LimitCounts::default();
        for login in limits::differing(&mut self.session, logins, limit).await? {
            match limits::set(&mut self.session, login, limit).await? {
                None => limited.changed += 1,
                Some(error) => {
                    tracing::warn!(%login, limit, %error, "a login keeps another connection limit; it is tried again");
                    limited.left += 1;
                }
            }
        }
        Ok(limited)
    }

    /// The limit of a login and the sessions that it has; `None` if it does not exist.
    pub(crate) async fn login_sessions(&mut self, login: &str) -> Result<Option<LoginSessions>, StepError> {
        Ok(limits::sessions(&mut self.session, login).await?)
    }
}
