//! The connection limits of logins, on a worker's session.
use super::Hold;
use crate::cluster::Workshop;
use crate::cluster::pg::limits::{self, CountSessions, LoginSessions};
use crate::error::StepError;
use crate::ident::RoleName;
use crate::tenant::TenantId;
use async_trait::async_trait;

/// How many of some logins were altered, and how many could not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limited {
    pub(crate) changed: u32,
    pub(crate) left: u32,
}

impl Hold {
    /// Gives those of these logins that have another connection limit this one. Whether a login may log in stays as it is.
    /// A login that cannot be altered now is logged and counted.
    pub(crate) async fn limit_logins(&mut self, logins: &[RoleName], limit: i32) -> Result<Limited, StepError> {
        let mut limited = Limited::default();
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
}

#[async_trait]
impl CountSessions for Workshop {
    async fn login_sessions(&self, tenant: TenantId, login: &str) -> Option<LoginSessions> {
        let counted = async {
            let Some(place) = self.place(tenant).await? else { return Ok(None) };
            let mut hold = self.retirer(tenant, place.server).await?;
            Ok::<_, StepError>(limits::sessions(&mut hold.session, login).await?)
        };
        match counted.await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%tenant, login, %error, "the sessions of a login cannot be counted");
                None
            }
        }
    }
}
