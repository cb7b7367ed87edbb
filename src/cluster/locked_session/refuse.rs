//! Shutting a tenant out, and letting it in again. *Closed*: no role can enter its database and every session was told to
//! end, read back. *Empty*: no session is left.
use super::LockedSession;
use crate::cluster::pg::refuse::RefusedLogins;
use crate::cluster::pg::remaining::{self, Tenant};
use crate::cluster::pg::{ensure, readback, refuse, terminate};
use crate::error::{ClusterError, StepError};
use crate::names::RoleName;
use crate::names::TenantNames;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What closing a tenant has found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Closed {
    /// Superusers that can still enter: PostgreSQL refuses them nothing.
    pub(crate) superusers: Vec<String>,
    /// Roles whose comment was not ours, and is again.
    pub(crate) restored: Vec<String>,
}

impl LockedSession {
    /// Refuses these logins and the migrator, tells their sessions to end and waits for none; then reads back who can still
    /// enter. `exempt`: logins of operations of ours that are open now.
    ///
    /// # Errors
    /// A retry that names what keeps the tenant from being closed.
    pub(crate) async fn close_logins(
        &mut self, names: &TenantNames, logins: &[RoleName], exempt: &[RoleName],
    ) -> Result<Closed, StepError> {
        let all: Vec<&RoleName> = logins.iter().chain([&names.migrator]).filter(|l| !exempt.contains(l)).collect();
        let refused = self.refuse_all(names, &all).await?;
        let restored = refused.restored;
        let exempt = readback::Exempt { server: &self.server, logins: exempt };
        let superusers = readback::verify_closed(&mut self.session, names, &all, exempt).await?;
        Ok(Closed { superusers, restored })
    }

    /// As [`close_logins`](Self::close_logins), and closes the database to every role.
    pub(crate) async fn close_database(
        &mut self, names: &TenantNames, logins: &[RoleName], exempt: &[RoleName],
    ) -> Result<Closed, StepError> {
        let closed = self.close_logins(names, logins, exempt).await;
        // Close the database before reporting an obstacle: a role that could still connect cannot enter a closed database.
        ensure::close_database(&mut self.session, &names.database, &self.ownership).await?;
        let is_closed = ensure::find_own_database(&mut self.session, &names.database, &self.ownership).await?;
        match (closed, is_closed) {
            (Ok(shut), Some(found)) if !found.is_open => Ok(Closed { superusers: vec![], ..shut }),
            (Ok(_), Some(_)) => Err(StepError::retry("the database is open again; it is closed once more")),
            (closed, _) => closed,
        }
    }

    /// Prepared transactions first: there is no session to end that holds a login's row locked for them.
    pub(super) async fn refuse_all<'a>(
        &mut self, names: &TenantNames, logins: &[&'a RoleName],
    ) -> Result<RefusedLogins<'a>, StepError> {
        let mut refused = refuse::take_logins(&mut self.session, logins, &self.ownership).await?;
        self.roll_back_prepared(names, logins).await?;
        refuse::forbid_logins(&mut self.session, &mut refused, Some(&names.roles)).await?;
        terminate::end_connecting(&mut self.session, &names.database).await?;
        Ok(refused)
    }

    /// Tells the tenant's sessions to end for at most `limit`; answers how many are left.
    pub(crate) async fn end_sessions(
        &mut self, names: &TenantNames, logins: &[RoleName], exempt: &[RoleName], limit: Duration,
    ) -> Result<u32, StepError> {
        Ok(self.sessions_left(names, logins, exempt, limit).await?.len() as u32)
    }

    /// The same once more, after which none may be left and every login must be refused.
    ///
    /// # Errors
    /// A retry that names the sessions.
    pub(crate) async fn verify_empty(
        &mut self, names: &TenantNames, logins: &[RoleName], exempt: &[RoleName], limit: Duration,
    ) -> Result<Closed, StepError> {
        let left = self.sessions_left(names, logins, exempt, limit).await?;
        if !left.is_empty() {
            let (database, by) = (names.database.to_string(), remaining::list(&left));
            return Err(ClusterError::InUse { database, by }.into());
        }
        let all: Vec<&RoleName> = logins.iter().chain([&names.migrator]).filter(|l| !exempt.contains(l)).collect();
        let refused = self.refuse_all(names, &all).await?;
        if let Some(role) = refused.locked.first() {
            return Err(ClusterError::LockedLogin { role: role.to_string() }.into());
        }
        let restored = refused.restored;
        let exempt = readback::Exempt { server: &self.server, logins: exempt };
        let superusers = readback::verify_closed(&mut self.session, names, &all, exempt).await?;
        Ok(Closed { superusers, restored })
    }

    async fn sessions_left(
        &mut self, names: &TenantNames, logins: &[RoleName], exempt: &[RoleName], limit: Duration,
    ) -> Result<Vec<remaining::Session>, StepError> {
        let all: Vec<&RoleName> = logins.iter().chain([&names.migrator]).filter(|l| !exempt.contains(l)).collect();
        let tenant = Tenant { database: &names.database, roles: &all, server: &self.server, exempt };
        Ok(remaining::end_sessions(&mut self.session, tenant, limit).await?)
    }

    /// Refuses these logins and the migrator and waits until their sessions have ended: for what is dropped next.
    pub(crate) async fn refuse(&mut self, names: &TenantNames, logins: &[RoleName]) -> Result<(), StepError> {
        let all: Vec<&RoleName> = logins.iter().chain([&names.migrator]).collect();
        self.refuse_and_wait(names, &all).await
    }

    pub(super) async fn refuse_and_wait(&mut self, names: &TenantNames, logins: &[&RoleName]) -> Result<(), StepError> {
        self.refuse_all(names, logins).await?;
        ensure::refuse_logins(&mut self.session, &names.database, logins, &self.ownership).await?;
        Ok(())
    }

    /// Lets this login in again.
    pub(crate) async fn admit(&mut self, login: &RoleName, acts_as: &RoleName) -> Result<(), StepError> {
        Ok(ensure::admit_login(&mut self.session, login, acts_as, &self.ownership).await?)
    }

    /// Opens the database and lets this login in again.
    pub(crate) async fn reopen(
        &mut self, names: &TenantNames, login: &RoleName, acts_as: &RoleName,
    ) -> Result<(), StepError> {
        Ok(ensure::open_database(&mut self.session, &names.database, login, acts_as, &self.ownership).await?)
    }

    /// Lets those of these logins in again that exist.
    pub(crate) async fn admit_made(&mut self, logins: &[RoleName], acts_as: &RoleName) -> Result<(), StepError> {
        let logins: Vec<&RoleName> = logins.iter().collect();
        Ok(ensure::admit_existing_logins(&mut self.session, &logins, acts_as, &self.ownership).await?)
    }
}
