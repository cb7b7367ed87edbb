//! Dropping what a tenant has on its server.
use super::{LAST_MOMENT, LockedSession, SETTLING, Standby};
use crate::cluster::pg::{catalog, ddl, dependents, ensure, readback, refuse, session, terminate};
use crate::error::{ClusterError, StepError};
use crate::names::RoleName;
use crate::names::{GroupRoles, TenantNames};
use crate::sqlstate;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long one try of a drop fights other tenants for the database's lock.
const DROP_LIMIT: Duration = Duration::from_secs(30);
/// How often a drop is tried that fails with XX000 or 40P01: another session has changed the same row, or the checkpoint
/// before the drop failed because the disk is full, which more tries do not mend.
const DROP_TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// What became of a login that was replaced. It can no longer enter its database.
#[derive(Debug)]
pub(crate) enum RetiredLogin {
    Dropped,
    /// Why it still exists.
    Left(StepError),
}

impl LockedSession {
    /// One login: no session, no role. What it made by accident goes to `new_owner`, whom it acts as.
    pub(crate) async fn remove_login(
        &mut self, names: &TenantNames, login: &RoleName, new_owner: &RoleName,
    ) -> Result<(), StepError> {
        let ours = ensure::refuse_logins(&mut self.session, &names.database, &[login], &self.ownership).await?;
        if ours.is_empty() { Ok(()) } else { self.drop_refused(names, login, new_owner).await }
    }

    /// Asks what removing this login will ask, while the worker waits for something else: it takes less time afterwards.
    pub(crate) async fn prefetch_catalog(&mut self, names: &TenantNames, login: &RoleName) -> Result<(), StepError> {
        catalog::roles(&mut self.session, &[login], &self.ownership.admin).await?;
        Ok(terminate::prefetch_catalog(&mut self.session, &names.database, login).await?)
    }

    async fn drop_refused(
        &mut self, names: &TenantNames, login: &RoleName, new_owner: &RoleName,
    ) -> Result<(), StepError> {
        if ensure::drop_role(&mut self.session, login).await?.is_none() {
            return Ok(());
        }
        let mut inside = self.enter(&names.database).await?;
        dependents::verify_no_event_trigger(&mut inside, names.database.as_str()).await?;
        ddl::adopt(login, new_owner).run(&mut inside, "adopting what the login made").await?;
        session::close(inside).await;
        self.gone(login).await
    }

    /// One login that another one has replaced. Sessions of it have `grace` to go over to the new one by themselves: first
    /// with the old one still good, and then, for those that came in at the last moment, a little longer.
    ///
    /// # Errors
    /// When it may still be able to enter its database.
    pub(crate) async fn retire_login(
        &mut self, names: &TenantNames, login: &RoleName, new_owner: &RoleName, grace: Duration, standbys: &[Standby],
    ) -> Result<RetiredLogin, StepError> {
        if !grace.is_zero() {
            self.drained(login, grace, standbys).await?;
        }
        let mut is_locked = false;
        if grace.is_zero() {
            is_locked = !self.refuse_all(names, &[login]).await?.locked.is_empty();
        } else if !refuse::forbid_new_sessions(&mut self.session, login, &self.ownership).await? {
            return Ok(RetiredLogin::Dropped);
        }
        if readback::can_enter(&mut self.session, &names.database, login).await? {
            let (database, roles) = (names.database.to_string(), login.to_string());
            return Err(ClusterError::StillOpen { database, roles }.into());
        }
        if is_locked {
            return Ok(RetiredLogin::Left(ClusterError::LockedLogin { role: login.to_string() }.into()));
        }
        match self.drop_retired(names, login, new_owner, grace, standbys).await {
            Ok(()) => Ok(RetiredLogin::Dropped),
            Err(error) if error.is_fenced() => Err(error),
            Err(error) => Ok(RetiredLogin::Left(error)),
        }
    }

    async fn drop_retired(
        &mut self, names: &TenantNames, login: &RoleName, new_owner: &RoleName, grace: Duration, standbys: &[Standby],
    ) -> Result<(), StepError> {
        // A session that is still connecting most likely uses the new login; it shows which one within a moment.
        terminate::wait_for_connecting_sessions(&mut self.session, &names.database, SETTLING).await?;
        if !grace.is_zero() {
            terminate::wait_until_idle(&mut self.session, login, LAST_MOMENT.min(grace)).await?;
        }
        terminate::terminate_role_sessions(&mut self.session, &[login]).await?;
        // Standbys come before the drop: sessions of a dropped role cannot be found by its name.
        self.refuse_on(standbys, names, &[login], grace).await?;
        self.drop_refused(names, login, new_owner).await
    }

    /// Whether this login exists and an operation of ours made it.
    pub(crate) async fn is_made(&mut self, login: &RoleName) -> Result<bool, StepError> {
        let found = catalog::roles(&mut self.session, &[login], &self.ownership.admin).await?;
        Ok(found.iter().any(|role| role.is_made(&self.ownership.marker)))
    }

    /// What a provisioning has made of these names, for its undo: a role or a database that another one has made is left as
    /// it is.
    pub(crate) async fn remove_made(&mut self, names: &TenantNames, logins: &[RoleName]) -> Result<(), StepError> {
        let GroupRoles { owner, app } = &names.roles;
        let logins: Vec<&RoleName> = logins.iter().chain([&names.migrator]).collect();
        let all: Vec<&RoleName> = logins.iter().copied().chain([app, owner]).collect();
        let found = catalog::roles(&mut self.session, &all, &self.ownership.admin).await?;
        let marker = self.ownership.marker.clone();
        let is_made = |role: &&&RoleName| !found.iter().any(|f| f.name == role.as_str() && !f.is_made(&marker));
        let logins: Vec<&RoleName> = logins.iter().filter(|r| is_made(r)).copied().collect();
        match ensure::find_own_database(&mut self.session, &names.database, &self.ownership).await {
            Err(ClusterError::WrongOwner { .. }) => self.refuse_and_wait(names, &logins).await?,
            found => {
                found?;
                self.remove_closed(names, &logins).await?;
            }
        }
        for role in all.iter().filter(|r| is_made(r)) {
            self.gone(role).await?;
        }
        Ok(())
    }

    /// The database alone. The logins are refused first: one that is in the middle of connecting would keep it.
    pub(crate) async fn remove_database(&mut self, names: &TenantNames, logins: &[RoleName]) -> Result<(), StepError> {
        let all: Vec<&RoleName> = logins.iter().chain([&names.migrator]).collect();
        self.remove_closed(names, &all).await
    }

    async fn remove_closed(&mut self, names: &TenantNames, logins: &[&RoleName]) -> Result<(), StepError> {
        self.refuse_and_wait(names, logins).await?;
        let until = Instant::now() + DROP_LIMIT;
        let mut failures = 0;
        loop {
            if ensure::find_own_database(&mut self.session, &names.database, &self.ownership).await?.is_some() {
                self.roll_back_in_the_way(&names.database).await?;
            }
            let dropped = ensure::drop_database(&mut self.session, &names.database, &self.ownership).await?;
            let Some(source) = dropped else { return Ok(()) };
            if sqlstate::is(&source, sqlstate::LOCK_NOT_AVAILABLE) {
                if Instant::now() >= until {
                    let by = String::from("sessions or prepared transactions of other tenants that keep it locked");
                    return Err(ClusterError::InUse { database: names.database.to_string(), by }.into());
                }
                continue;
            }
            failures += 1;
            if failures == DROP_TRIES {
                return Err(ClusterError::Sql { phase: "dropping the database", source }.into());
            }
            sleep(PAUSE).await;
        }
    }

    /// Everything of the tenant, in the order that a drop needs. Covers what was never made, or is half gone.
    pub(crate) async fn remove(&mut self, names: &TenantNames, logins: &[RoleName]) -> Result<(), StepError> {
        self.remove_database(names, logins).await?;
        let GroupRoles { owner, app } = &names.roles;
        for role in logins.iter().chain([&names.migrator, app, owner]) {
            self.gone(role).await?;
        }
        Ok(())
    }

    /// Drops a role. What depends on it in other databases is removed there first; a neighbour may grant to it once more in
    /// between, so this is tried several times.
    async fn gone(&mut self, role: &RoleName) -> Result<(), StepError> {
        const TRIES: u32 = 30;
        /// After these the sessions of the neighbour are ended each time, so that it must connect before it grants again.
        const PATIENT_TRIES: u32 = 3;
        let mut tries = 0;
        loop {
            let Some(detail) = ensure::drop_own_role(&mut self.session, role, &self.ownership).await? else {
                return Ok(());
            };
            tries += 1;
            if tries > TRIES {
                return Err(ClusterError::Dependent { role: role.to_string(), detail }.into());
            }
            if tries > PATIENT_TRIES {
                self.end_neighbours(role).await?;
            }
            self.clear_elsewhere(role).await?;
        }
    }
}
