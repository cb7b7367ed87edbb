//! Refusing a tenant's logins and admitting them again: the server part of suspend, archive, purge and activate.
//!
//! The sagas first *close* the tenant: no role can connect to its database and every session was signalled, which is
//! read back from the catalogs. Then they verify that it is *empty*: no session is left. Each method may be repeated.
use super::LockedSession;
use crate::cluster::pg::ownership::Ownership;
use crate::cluster::pg::refuse::RefusedLogins;
use crate::cluster::pg::remaining::{self, Tenant};
use crate::cluster::pg::{catalog, ddl, ensure, readback, refuse, terminate};
use crate::error::{ClusterError, StepError};
use crate::names::RoleName;
use crate::names::TenantNames;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What closing a tenant has found. Stored as the output of a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Closed {
    /// Superusers that can still connect. PostgreSQL cannot refuse them.
    pub(crate) superusers: Vec<String>,
    /// Roles whose comment had been changed and was restored.
    pub(crate) restored: Vec<String>,
}

impl LockedSession {
    /// Refuses these logins and the migrator and signals their sessions, without waiting for the sessions to end. Then
    /// reads back which roles can still connect. `exempt`: logins of other open operations of this crate, which are
    /// left alone.
    ///
    /// # Errors
    /// A retry that names the role that keeps the tenant from being closed.
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

    /// As [`close_logins`](Self::close_logins), and makes the database refuse all connections, also of superusers.
    pub(crate) async fn close_database(
        &mut self, names: &TenantNames, logins: &[RoleName], exempt: &[RoleName],
    ) -> Result<Closed, StepError> {
        let closed = self.close_logins(names, logins, exempt).await;
        // Close the database before reporting an obstacle, so that a role that can still log in cannot connect to it.
        ensure::close_database(&mut self.session, &names.database, &self.ownership).await?;
        let found = ensure::find_own_database(&mut self.session, &names.database, &self.ownership).await?;
        match (closed, found) {
            (Ok(closed), Some(found)) if !found.is_open => Ok(Closed { superusers: vec![], ..closed }),
            (Ok(_), Some(_)) => {
                Err(StepError::retry("the database accepts connections again; it will be closed once more"))
            }
            (closed, _) => closed,
        }
    }

    /// Rolls prepared transactions back before NOLOGIN: one of them may lock a login's row, and has no session to
    /// terminate.
    pub(super) async fn refuse_all<'a>(
        &mut self, names: &TenantNames, logins: &[&'a RoleName],
    ) -> Result<RefusedLogins<'a>, StepError> {
        let mut refused = refuse::take_logins(&mut self.session, logins, &self.ownership).await?;
        self.roll_back_prepared(names, logins).await?;
        refuse::forbid_logins(&mut self.session, &mut refused, Some(&names.roles)).await?;
        terminate::terminate_connecting_sessions(&mut self.session, &names.database).await?;
        Ok(refused)
    }

    /// Signals the tenant's sessions to end for at most `limit`; returns the number of sessions that are left.
    pub(crate) async fn end_sessions(
        &mut self, names: &TenantNames, logins: &[RoleName], exempt: &[RoleName], limit: Duration,
    ) -> Result<u32, StepError> {
        Ok(self.terminate_remaining(names, logins, exempt, limit).await?.len() as u32)
    }

    /// As [`end_sessions`](Self::end_sessions), then verifies that no session is left and that every login is refused.
    ///
    /// # Errors
    /// A retry that names the sessions, or the login whose row is locked.
    pub(crate) async fn verify_empty(
        &mut self, names: &TenantNames, logins: &[RoleName], exempt: &[RoleName], limit: Duration,
    ) -> Result<Closed, StepError> {
        let left = self.terminate_remaining(names, logins, exempt, limit).await?;
        if !left.is_empty() {
            let (database, by) = (names.database.to_string(), remaining::describe(&left));
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

    async fn terminate_remaining(
        &mut self, names: &TenantNames, logins: &[RoleName], exempt: &[RoleName], limit: Duration,
    ) -> Result<Vec<remaining::Session>, StepError> {
        let all: Vec<&RoleName> = logins.iter().chain([&names.migrator]).filter(|l| !exempt.contains(l)).collect();
        let tenant = Tenant { database: &names.database, roles: &all, server: &self.server, exempt };
        Ok(remaining::terminate_sessions(&mut self.session, tenant, limit).await?)
    }

    /// Refuses these logins and the migrator and waits until their sessions have ended. For logins that are dropped
    /// next.
    pub(crate) async fn refuse(&mut self, names: &TenantNames, logins: &[RoleName]) -> Result<(), StepError> {
        let all: Vec<&RoleName> = logins.iter().chain([&names.migrator]).collect();
        self.refuse_and_wait(names, &all).await
    }

    pub(super) async fn refuse_and_wait(&mut self, names: &TenantNames, logins: &[&RoleName]) -> Result<(), StepError> {
        self.refuse_all(names, logins).await?;
        let (session, database) = (&mut self.session, &names.database);
        ensure::refuse_logins(session, database, logins, &self.ownership, Duration::ZERO).await?;
        Ok(())
    }

    /// Admits a refused login again, as a member of the group role `acts_as`.
    pub(crate) async fn admit(&mut self, login: &RoleName, acts_as: &RoleName) -> Result<(), StepError> {
        Ok(ensure::admit_login(&mut self.session, login, acts_as, &self.ownership).await?)
    }

    /// Lets the database accept connections again and admits this login.
    pub(crate) async fn reopen(
        &mut self, names: &TenantNames, login: &RoleName, acts_as: &RoleName,
    ) -> Result<(), StepError> {
        let missing = || ClusterError::Missing { kind: "database", name: names.database.to_string() };
        let found = ensure::find_own_database(&mut self.session, &names.database, &self.ownership).await?;
        let found = found.ok_or_else(missing)?;
        ensure::verify_role_exists(&mut self.session, login, &self.ownership).await?;
        let reopen = ddl::reopen_database(&names.database, found.own_limit(), login, acts_as, &self.ownership.admin);
        Ok(reopen.run(&mut self.session, "opening the database").await?)
    }

    /// Admits those of these logins that exist.
    pub(crate) async fn admit_existing(&mut self, logins: &[RoleName], acts_as: &RoleName) -> Result<(), StepError> {
        let logins: Vec<&RoleName> = logins.iter().collect();
        let Ownership { admin, .. } = &self.ownership;
        for login in catalog::find_own_roles(&mut self.session, &logins, admin).await? {
            ddl::admit_login(login, acts_as, admin).run(&mut self.session, "admitting a login").await?;
        }
        Ok(())
    }
}
