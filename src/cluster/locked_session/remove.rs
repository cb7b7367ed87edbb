//! Dropping a tenant's logins, database and roles.
//!
//! Purge, rotation and the undo of a provisioning use it. Each method covers objects that were never created or are
//! already gone, so it may be repeated. Logins are always refused first; otherwise a session could connect during the
//! drop.
use super::{LAST_MOMENT, LockedSession, SETTLING, Standby};
use crate::cluster::pg::{catalog, ddl, dependents, ensure, readback, refuse, session, terminate};
use crate::error::{ClusterError, StepError};
use crate::names::RoleName;
use crate::names::{GroupRoles, TenantNames};
use crate::sqlstate;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long one attempt to drop a database competes with other tenants' sessions for the database's lock.
const DROP_LIMIT: Duration = Duration::from_secs(30);
/// Attempts of a drop that fails with XX000 or 40P01. Either another session has changed the same row, which a further
/// attempt resolves, or the checkpoint before the drop failed because the disk is full, which it does not.
const DROP_TRIES: u32 = 5;
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// What became of a replaced login. In both cases it can no longer connect to its database.
#[derive(Debug)]
pub(crate) enum RetiredLogin {
    /// The role does not exist any more.
    Dropped,
    /// The role still exists, for this reason.
    Left(StepError),
}

impl LockedSession {
    /// Refuses a login, waits until its sessions have ended, and drops its role. Objects that it owns in the tenant's
    /// database are reassigned to `new_owner`.
    pub(crate) async fn remove_login(
        &mut self, names: &TenantNames, login: &RoleName, new_owner: &RoleName,
    ) -> Result<(), StepError> {
        let (session, database) = (&mut self.session, &names.database);
        let existing = ensure::refuse_logins(session, database, &[login], &self.ownership, SETTLING).await?;
        if existing.is_empty() { Ok(()) } else { self.drop_refused(names, login, new_owner).await }
    }

    /// Runs the catalog queries of retiring a login once, without signalling a session. The first run takes
    /// milliseconds, because PostgreSQL has to load these catalogs into the session's cache.
    pub(crate) async fn load_catalogs(&mut self, names: &TenantNames, login: &RoleName) -> Result<(), ClusterError> {
        catalog::find_roles(&mut self.session, &[login], &self.ownership.admin).await?;
        terminate::list_connecting_sessions(&mut self.session, &names.database).await?;
        terminate::list_role_sessions(&mut self.session, &[login]).await?;
        Ok(())
    }

    async fn drop_refused(
        &mut self, names: &TenantNames, login: &RoleName, new_owner: &RoleName,
    ) -> Result<(), StepError> {
        if ensure::drop_role(&mut self.session, login).await?.is_none() {
            return Ok(());
        }
        let mut inside = self.open_session_in(&names.database).await?;
        dependents::verify_no_event_trigger(&mut inside, names.database.as_str()).await?;
        ddl::reassign_owned(login, new_owner).run(&mut inside, "reassigning what the login owns").await?;
        session::close(inside).await;
        self.drop_role(login).await
    }

    /// Drops a login that another one has replaced. Waits up to `grace` until the applications have closed its
    /// sessions, then forbids new ones. Sessions that were opened just before that get two more seconds, or `grace` if
    /// that is shorter; then they are terminated. `Left` if the role could not be dropped.
    ///
    /// # Errors
    /// The login may still be able to connect to its database, or a newer worker has taken over.
    pub(crate) async fn retire_login(
        &mut self, names: &TenantNames, login: &RoleName, new_owner: &RoleName, grace: Duration, standbys: &[Standby],
    ) -> Result<RetiredLogin, StepError> {
        if !grace.is_zero() {
            self.wait_for_drain(login, grace, standbys).await?;
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
        // A session that is still connecting has no login in `pg_stat_activity` yet. It most likely uses the new one,
        // so give it time to show its login. Only one that is still connecting after that is terminated.
        terminate::wait_for_connecting_sessions(&mut self.session, &names.database, SETTLING).await?;
        if !grace.is_zero() {
            terminate::wait_until_idle(&mut self.session, login, LAST_MOMENT.min(grace)).await?;
        }
        terminate::terminate_role_sessions(&mut self.session, &[login]).await?;
        // Refuse on the standbys before the drop: once the role is dropped, its sessions cannot be found by its name.
        self.refuse_on(standbys, names, &[login], grace).await?;
        self.drop_refused(names, login, new_owner).await
    }

    /// Whether this login exists and was created by this installation for the tenant.
    pub(crate) async fn is_own_login(&mut self, login: &RoleName) -> Result<bool, StepError> {
        let found = catalog::find_roles(&mut self.session, &[login], &self.ownership.admin).await?;
        Ok(found.iter().any(|role| role.is_made(&self.ownership.marker)))
    }

    /// Removes what a provisioning has created under these names, for its undo. A role or database that this
    /// provisioning did not create is left as it is.
    pub(crate) async fn remove_created(&mut self, names: &TenantNames, logins: &[RoleName]) -> Result<(), StepError> {
        let GroupRoles { owner, app } = &names.roles;
        let logins: Vec<&RoleName> = logins.iter().chain([&names.migrator]).collect();
        let all: Vec<&RoleName> = logins.iter().copied().chain([app, owner]).collect();
        let found = catalog::find_roles(&mut self.session, &all, &self.ownership.admin).await?;
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
            self.drop_role(role).await?;
        }
        Ok(())
    }

    /// Drops the database only. Refuses these logins and the migrator first: a session that is still connecting would
    /// keep the database from being dropped.
    pub(crate) async fn remove_database(&mut self, names: &TenantNames, logins: &[RoleName]) -> Result<(), StepError> {
        let all: Vec<&RoleName> = logins.iter().chain([&names.migrator]).collect();
        self.remove_closed(names, &all).await
    }

    async fn remove_closed(&mut self, names: &TenantNames, logins: &[&RoleName]) -> Result<(), StepError> {
        self.refuse_and_wait(names, logins).await?;
        let deadline = Instant::now() + DROP_LIMIT;
        let mut failures = 0;
        loop {
            if ensure::find_own_database(&mut self.session, &names.database, &self.ownership).await?.is_some() {
                self.roll_back_blocking_transactions(&names.database).await?;
            }
            let dropped = ensure::drop_database(&mut self.session, &names.database, &self.ownership).await?;
            let Some(source) = dropped else { return Ok(()) };
            if sqlstate::is(&source, sqlstate::LOCK_NOT_AVAILABLE) {
                if Instant::now() >= deadline {
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

    /// Drops the tenant's database and then all its roles. Covers objects that were never created or are already gone.
    pub(crate) async fn remove(&mut self, names: &TenantNames, logins: &[RoleName]) -> Result<(), StepError> {
        self.remove_database(names, logins).await?;
        let GroupRoles { owner, app } = &names.roles;
        for role in logins.iter().chain([&names.migrator, app, owner]) {
            self.drop_role(role).await?;
        }
        Ok(())
    }

    /// Drops a role. Removes first what depends on it in other databases. A neighbour tenant may grant to the role
    /// again in between, so there are several attempts.
    async fn drop_role(&mut self, role: &RoleName) -> Result<(), StepError> {
        const TRIES: u32 = 30;
        /// After this many attempts the neighbour's sessions are terminated each time, so that it must reconnect before
        /// it can grant again.
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
                self.terminate_neighbour_sessions(role).await?;
            }
            self.drop_dependents_elsewhere(role).await?;
        }
    }
}
