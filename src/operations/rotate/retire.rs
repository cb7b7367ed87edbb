//! Logins that wait to be dropped: a queue in the landlord, in which nobody waits for anybody.
use super::Rotation;
use super::steps::said;
use crate::cluster::RetiredLogin;
use crate::cluster::pg::ddl;
use crate::directory::DatabaseUser;
use crate::error::{StepError, StoreError};
use crate::names::TenantNames;
use crate::store::registry::Retirement;
use futures_util::{StreamExt, stream};
use rand::RngExt;
use std::time::Duration;

/// At once, on this node.
const AT_ONCE: usize = 4;
/// A node that dies at it keeps others from it for so long.
const HOLD: Duration = Duration::from_secs(180);
/// The first wait doubles up to the longest one.
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(3600);

/// What one pass over the queue did.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RetireReport {
    /// Logins that are gone now.
    pub dropped: u32,
    /// Logins that are still there: why stands in their rows.
    pub left: u32,
}

impl Rotation {
    /// Tries each login whose time has come, once. Any number of nodes may do this.
    ///
    /// # Cancel safety
    /// What was taken is due again after three minutes.
    pub async fn retire_due(&self) -> Result<RetireReport, StoreError> {
        let mut report = RetireReport::default();
        loop {
            let due = self.stores.registry.take_retirements(AT_ONCE as u32, HOLD).await?;
            if due.is_empty() {
                return Ok(report);
            }
            let mut tried = stream::iter(due).map(|due| self.try_retire(due)).buffer_unordered(AT_ONCE);
            while let Some(gone) = tried.next().await {
                match gone? {
                    true => report.dropped += 1,
                    false => report.left += 1,
                }
            }
        }
    }

    /// Every login that waits to be dropped, with the reason: longest waiting first, at most `limit`.
    pub async fn retiring(&self, limit: u32) -> Result<Vec<Retirement>, StoreError> {
        self.stores.registry.retiring(limit).await
    }

    async fn try_retire(&self, due: Retirement) -> Result<bool, StoreError> {
        let dropped = self.drop_login(&due.user).await;
        let reason = dropped.as_ref().err().map(said);
        if let Some(reason) = &reason {
            tracing::warn!(login = %due.user.role, attempts = due.attempts + 1, reason, "a replaced login is still there");
        }
        let left = reason.as_deref().map(|reason| (reason, wait(due.attempts)));
        self.stores.registry.settle_retirement(&due.user, left, None).await?;
        Ok(reason.is_none())
    }

    async fn drop_login(&self, user: &DatabaseUser) -> Result<(), StepError> {
        let unknown = || StepError::retry(format!("server {} is not registered any more", user.server));
        let load = self.stores.servers.server(&user.server).await?.ok_or_else(unknown)?;
        let names = TenantNames::of(&user.database).map_err(StepError::fail)?;
        let new_owner = ddl::acts_as(&names.roles, self.login.access).clone();
        let standbys = self.stores.standbys(user.tenant, &user.database).await?;
        let mut locked = self.stores.retirer(user.tenant, load.server.clone()).await?;
        match locked.retire_login(&names, &user.role, &new_owner, Duration::ZERO, &standbys).await? {
            RetiredLogin::Dropped => {}
            RetiredLogin::Left(error) => return Err(error),
        }
        // No epoch stops this worker: if the server has moved, the login was dropped at the old address, perhaps only there.
        let now = self.stores.servers.server(&user.server).await?.ok_or_else(unknown)?.server;
        match now.is_at(&load.server.host, load.server.port) {
            true => Ok(()),
            false => Err(StepError::retry(format!("server {} has moved meanwhile", user.server))),
        }
    }
}

fn wait(attempts: u32) -> Duration {
    let doubled = FIRST.saturating_mul(1 << attempts.min(11)).min(LONGEST);
    doubled.mul_f64(rand::rng().random_range(0.8..1.2))
}
