//! What the doctor restores on a server: logins, memberships, attributes, the schema `public`, comments, sessions.
//!
//! The steps of the saga `repair` call these methods after they have examined the tenant under its lock. Each restores
//! the state that a provisioning makes, looks at the catalogs before it changes a role, and may be repeated.
//!
//! Invariant: a role is changed only if the admin role has the ADMIN option on it.
use super::LockedSession;
use crate::cluster::pg::terminate::SameSession;
use crate::cluster::pg::{bootstrap, catalog, ddl, dependents, ensure, retry, session, terminate};
use crate::directory::AppAccess;
use crate::error::{ClusterError, StepError};
use crate::names::{RoleName, TenantNames};

impl LockedSession {
    /// Gives a login LOGIN, no expiry, its group role and its role setting. Resets its other settings only on request.
    ///
    /// # Errors
    /// `Missing` if the login or its group role does not exist, `Foreign` if one of them is not ours.
    pub(crate) async fn restore_login(
        &mut self, names: &TenantNames, login: &RoleName, access: AppAccess, resets_settings: bool,
    ) -> Result<(), StepError> {
        let acts_as = ddl::acts_as(&names.roles, access);
        for role in [login, acts_as] {
            ensure::verify_role_exists(&mut self.session, role, &self.ownership).await?;
        }
        let (database, admin) = (&names.database, &self.ownership.admin);
        let restored = ddl::RestoredLogin { name: login, acts_as, database, resets_settings };
        let restore = || ddl::restore_login(&restored, admin);
        Ok(retry::retry_contended(&mut self.session, restore, "restoring a login").await?)
    }

    /// Restores the rights on the tenant's database, and lets it accept connections. `temp_tables` is whether the app role
    /// gets the right to create temporary tables; it keeps that right if it has it.
    ///
    /// # Errors
    /// `Missing` if the database or a group role does not exist, `WrongOwner` if the admin role does not own the
    /// database, `Foreign` if a group role is not ours.
    pub(crate) async fn restore_access(&mut self, names: &TenantNames, temp_tables: bool) -> Result<(), StepError> {
        self.verify_groups(names).await?;
        let missing = || ClusterError::Missing { kind: "database", name: names.database.to_string() };
        let found = ensure::find_own_database(&mut self.session, &names.database, &self.ownership).await?;
        let (limit, marker) = (found.ok_or_else(missing)?.own_limit(), self.ownership.marker.clone());
        let access = ddl::RestoredAccess { names, temp_tables, limit, marker: &marker };
        let restore = || ddl::restore_access(&access);
        Ok(retry::retry_contended(&mut self.session, restore, "restoring the rights on a database").await?)
    }

    /// Verifies that both group roles exist and are ours, before something is granted to them.
    async fn verify_groups(&mut self, names: &TenantNames) -> Result<(), StepError> {
        for role in [&names.roles.owner, &names.roles.app] {
            ensure::verify_role_exists(&mut self.session, role, &self.ownership).await?;
        }
        Ok(())
    }

    /// Whether a role of this name exists.
    pub(crate) async fn has_role(&mut self, role: &RoleName) -> Result<bool, StepError> {
        Ok(!catalog::find_roles(&mut self.session, &[role], &self.ownership.admin).await?.is_empty())
    }

    /// Revokes a membership. The caller verifies by another examination that it is gone: a membership that another role
    /// has granted stays on PostgreSQL 16 and later.
    pub(crate) async fn revoke_membership(&mut self, member: &RoleName, group: &RoleName) -> Result<(), StepError> {
        let revoke = || ddl::revoke_membership(member, group);
        Ok(retry::retry_contended(&mut self.session, revoke, "revoking a membership").await?)
    }

    /// Revokes what was granted to a login itself on the tenant's database and, in a second session there, on what its
    /// group roles own in their schemas. What another role has granted stays.
    ///
    /// # Errors
    /// `Missing` if the login or a group role does not exist, `Foreign` if one of them is not ours, `EventTrigger` as for
    /// [`restore_schema`](Self::restore_schema). 42501 if a schema has objects of another role.
    pub(crate) async fn revoke_rights(&mut self, names: &TenantNames, login: &RoleName) -> Result<(), StepError> {
        ensure::verify_role_exists(&mut self.session, login, &self.ownership).await?;
        self.verify_groups(names).await?;
        let revoke = || ddl::revoke_database_rights(&names.database, login);
        retry::retry_contended(&mut self.session, revoke, "revoking rights on a database").await?;
        let mut inside = self.open_session_in(&names.database).await?;
        dependents::verify_no_event_trigger(&mut inside, names.database.as_str()).await?;
        let schemas = dependents::find_granted_schemas(&mut inside, login).await?;
        if !schemas.is_empty() {
            let revoke = || ddl::revoke_rights_in(&schemas, login, &names.roles, &self.ownership.admin);
            retry::retry_contended(&mut inside, revoke, "revoking rights of a login").await?;
        }
        session::close(inside).await;
        Ok(())
    }

    /// Takes CREATEDB and CREATEROLE from a role of the tenant.
    ///
    /// # Errors
    /// `Missing` if it does not exist, `Foreign` if it is not ours.
    pub(crate) async fn remove_privileges(&mut self, role: &RoleName) -> Result<(), StepError> {
        ensure::verify_role_exists(&mut self.session, role, &self.ownership).await?;
        let remove = || ddl::remove_privileges(role);
        Ok(retry::retry_contended(&mut self.session, remove, "taking privileges from a role").await?)
    }

    /// Sets the comment of a role of the tenant to the marker.
    ///
    /// # Errors
    /// `Missing` if it does not exist, `Foreign` if it is not ours.
    pub(crate) async fn restore_comment(&mut self, role: &RoleName) -> Result<(), StepError> {
        ensure::verify_role_exists(&mut self.session, role, &self.ownership).await?;
        let marker = self.ownership.marker.clone();
        let restore = || ddl::restore_comment(role, &marker);
        Ok(retry::retry_contended(&mut self.session, restore, "restoring the comment on a role").await?)
    }

    /// Restores owner and rights of the schema `public`, in a second session in the tenant's database.
    ///
    /// # Errors
    /// `EventTrigger` if the database has one, which would run with the provisioner's rights; `Missing` or `Foreign` for a
    /// group role. Nothing was changed then.
    pub(crate) async fn restore_schema(&mut self, names: &TenantNames) -> Result<(), StepError> {
        self.verify_groups(names).await?;
        let mut inside = self.open_session_in(&names.database).await?;
        dependents::verify_no_event_trigger(&mut inside, names.database.as_str()).await?;
        let restore = || ddl::restore_schema(&names.roles, &self.ownership.admin);
        retry::retry_contended(&mut inside, restore, "restoring the schema public").await?;
        session::close(inside).await;
        Ok(())
    }

    /// Gives what a login owns in the tenant's database to the group role as which it acts, in a second session there.
    ///
    /// # Errors
    /// `Missing` if the login or its group role does not exist, `Foreign` if one of them is not ours, `EventTrigger` as
    /// for [`restore_schema`](Self::restore_schema).
    pub(crate) async fn reassign_objects(
        &mut self, names: &TenantNames, login: &RoleName, group: &RoleName,
    ) -> Result<(), StepError> {
        for role in [login, group] {
            ensure::verify_role_exists(&mut self.session, role, &self.ownership).await?;
        }
        let mut inside = self.open_session_in(&names.database).await?;
        dependents::verify_no_event_trigger(&mut inside, names.database.as_str()).await?;
        let reassign = || ddl::reassign_to_group(login, group, &self.ownership.admin);
        retry::retry_contended(&mut inside, reassign, "reassigning what a login owns").await?;
        session::close(inside).await;
        Ok(())
    }

    /// Revokes the rights of PUBLIC on the tenant's database, if the admin role owns it.
    pub(crate) async fn close_to_public(&mut self, names: &TenantNames) -> Result<(), StepError> {
        let database = &names.database;
        if ensure::find_own_database(&mut self.session, database, &self.ownership).await?.is_some() {
            let close = || ddl::close_tenant_to_public(database);
            retry::retry_contended(&mut self.session, close, "revoking the rights of PUBLIC on a database").await?;
        }
        Ok(())
    }

    /// Revokes the rights of PUBLIC on the maintenance database.
    pub(crate) async fn close_maintenance(&mut self) -> Result<(), StepError> {
        let database = self.server.names.maintenance.clone();
        Ok(bootstrap::close_maintenance(&mut self.session, &database).await?)
    }

    /// Closes the tenant's database, if it has the connection limit of a clean-up and accepts connections.
    pub(crate) async fn close_left_open(&mut self, names: &TenantNames) -> Result<(), StepError> {
        let found = catalog::find_database(&mut self.session, &names.database).await?;
        if found.is_some_and(|found| found.is_open && found.connection_limit == ddl::CLEAN_UP_LIMIT) {
            let close = || ddl::close_after_clean_up(names.database.as_str(), -1);
            retry::retry_contended(&mut self.session, close, "closing a database again").await?;
        }
        Ok(())
    }

    /// Terminates a session, if it is still in the same transaction, and waits until it has ended.
    ///
    /// # Errors
    /// 42501 if the provisioner may not terminate it.
    pub(crate) async fn end_session(&mut self, same: &SameSession) -> Result<(), StepError> {
        Ok(terminate::terminate_same_session(&mut self.session, same).await?)
    }
}
