//! The queue of replaced logins that could not be dropped yet. It is stored in the landlord.
//!
//! Every node calls [`Rotation::retire_due`] from time to time. A node claims due entries for three minutes, tries each
//! drop once, and stores the reason and the next time after a failure. No entry waits for another one. A login leaves
//! the queue only when it was dropped at the address that its server still has afterwards.
use super::{GRACE, Rotation};
use crate::cluster::pg::ddl;
use crate::cluster::{OperationContext, RetiredLogin};
use crate::directory::DatabaseUser;
use crate::error::{Rows, StepError, StoreError};
use crate::names::TenantNames;
use crate::saga::Execution;
use crate::store::registry::Retirement;
use crate::tenant::TenantId;
use futures_util::{StreamExt, stream};
use rand::RngExt;
use std::time::Duration;

/// Drops that one call tries concurrently.
const CONCURRENCY: usize = 4;
/// How long a claimed login is withheld from other nodes, in case the claiming node dies.
const CLAIM: Duration = Duration::from_secs(180);
/// Wait after the first failed drop. It doubles with each failure, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Number of logins that one pass over the queue of replaced logins dropped and left.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RetireReport {
    /// Logins that were dropped.
    pub dropped: u32,
    /// Logins that could not be dropped. [`Tenantry::retiring`](crate::Tenantry::retiring) lists them with the reason.
    pub left: u32,
}

impl Rotation {
    /// Tries to drop each replaced login that is due, once. Any number of nodes may call this concurrently.
    ///
    /// # Cancel safety
    /// If the future is dropped, the logins that it had claimed are due again after three minutes.
    pub(crate) async fn retire_due(&self) -> Result<RetireReport, StoreError> {
        let mut report = RetireReport::default();
        loop {
            let due = self.stores.registry.take_retirements(CONCURRENCY as u32, CLAIM).await?;
            if due.is_empty() && due.unreadable.is_empty() {
                return Ok(report);
            }
            report.left += due.unreadable.len() as u32;
            let due = due.log_unreadable();
            let mut tried = stream::iter(due).map(|due| self.try_retire(due)).buffer_unordered(CONCURRENCY);
            while let Some(dropped) = tried.next().await {
                match dropped? {
                    true => report.dropped += 1,
                    false => report.left += 1,
                }
            }
        }
    }

    /// Replaced logins that could not be dropped yet, each with the reason. The one that has waited longest comes
    /// first; at most `limit` are returned.
    pub(crate) async fn retiring(&self, limit: u32) -> Result<Rows<Retirement>, StoreError> {
        self.stores.registry.retiring(limit).await
    }

    /// Tries to drop one login and stores the result. Returns whether the login was dropped.
    async fn try_retire(&self, due: Retirement) -> Result<bool, StoreError> {
        let dropped = self.drop_login(&due.user).await;
        let reason = dropped.as_ref().err().map(StepError::cause_text);
        if let Some(reason) = &reason {
            let (login, attempts) = (&due.user.role, due.attempts + 1);
            tracing::warn!(%login, attempts, reason, "a replaced login could not be dropped");
        }
        let left = reason.as_deref().map(|reason| (reason, backoff(due.attempts)));
        self.stores.registry.settle_retirement(&due.user, left, None).await?;
        Ok(reason.is_none())
    }

    /// Drops one retiring login now, whether or not it is due. A failure leaves it to the queue, which tries again soon.
    ///
    /// # Errors
    /// Why the login still exists.
    pub(crate) async fn retire_now(&self, user: &DatabaseUser) -> Result<(), StepError> {
        let dropped = self.drop_login(user).await;
        let reason = dropped.as_ref().err().map(StepError::cause_text);
        let left = reason.as_deref().map(|reason| (reason, FIRST_WAIT));
        self.stores.registry.settle_retirement(user, left, None).await?;
        dropped
    }

    async fn drop_login(&self, user: &DatabaseUser) -> Result<(), StepError> {
        let unknown = || StepError::retry(format!("server {} is no longer registered", user.server));
        let load = self.stores.servers.server(&user.server).await?.ok_or_else(unknown)?;
        let names = TenantNames::of(&user.database).map_err(StepError::fail)?;
        let new_owner = ddl::acts_as(&names.roles, self.login.access).clone();
        let standbys = self.stores.standbys(user.tenant, &user.database).await?;
        let mut locked = self.stores.open_retirement_session(user.tenant, load.server.clone()).await?;
        match locked.retire_login(&names, &user.role, &new_owner, Duration::ZERO, &standbys).await? {
            RetiredLogin::Dropped => {}
            RetiredLogin::Left(error) => return Err(error),
        }
        // This worker writes without an epoch, so a relocation does not stop it. If the server's address has changed
        // meanwhile, the login may have been dropped only on the old server: keep it in the queue.
        let current = self.stores.servers.server(&user.server).await?.ok_or_else(unknown)?.server;
        match current.is_at(&load.server.host, load.server.port) {
            true => Ok(()),
            false => Err(StepError::retry(format!("server {} was relocated during the drop", user.server))),
        }
    }
}

/// Gives the logins of the tenant that this operation has replaced to the queue, which drops them. They have no time of
/// their first drop until then, and get the usual grace period, because nodes may have sessions of them. A login whose
/// grace period runs already is left alone.
pub(crate) async fn queue_replaced(
    run: &Execution, stores: &OperationContext, tenant: TenantId, reason: &str,
) -> Result<(), StepError> {
    let is_replaced = |found: &Retirement| {
        let is_own = found.by.is_none_or(|by| by == run.operation());
        found.user.tenant == tenant && found.retry_at.is_none() && is_own
    };
    for found in stores.registry.retiring(u32::MAX).await?.into_iter().filter(is_replaced) {
        let later = Some((reason, GRACE));
        stores.registry.settle_retirement(&found.user, later, Some(run.fencing_token())).await?;
    }
    Ok(())
}

/// Exponential backoff with 20 % jitter.
fn backoff(attempts: u32) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1 << attempts.min(11)).min(LONGEST_WAIT);
    doubled.mul_f64(rand::rng().random_range(0.8..1.2))
}
