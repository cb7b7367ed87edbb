//! Clean-ups that need a session in another database than the maintenance database: rolling back prepared transactions,
//! and removing objects and grants that keep a role from being dropped.
//!
//! Dropping a tenant and refusing its logins use these methods. A clean-up that opens a closed database, or makes the
//! admin role a member of a role, reverts that in the same call. If the worker dies in between, recovery reverts it
//! (see [`dependents::close_databases_left_open`] and [`membership::give_back_abandoned`]).
use super::LockedSession;
use crate::cluster::pg::dependents::{self, DependentDatabase};
use crate::cluster::pg::{catalog, ddl, holders, membership, session, terminate};
use crate::error::{ClusterError, StepError};
use crate::names::TenantNames;
use crate::names::{DatabaseName, RoleName};
use crate::sqlstate;
use sqlx::PgConnection;

impl LockedSession {
    /// Rolls back the prepared transactions of the tenant's roles, in any open database. A prepared transaction can
    /// keep a login's row in `pg_authid` locked, and there is no session whose end would release it.
    pub(super) async fn roll_back_prepared(
        &mut self, names: &TenantNames, logins: &[&RoleName],
    ) -> Result<(), StepError> {
        let roles: Vec<&RoleName> = logins.iter().copied().chain([&names.roles.owner, &names.roles.app]).collect();
        let found = catalog::find_prepared_by(&mut self.session, &roles).await?;
        for prepared in found.iter().filter(|p| p.is_open) {
            self.roll_back_transaction(&prepared.database, &prepared.gid, &prepared.owner).await?;
        }
        Ok(())
    }

    /// Rolls back the prepared transactions that keep the database from being dropped: those in it, and those of any
    /// tenant that lock the database's object. The tenant's logins must have been refused before.
    pub(super) async fn roll_back_blocking_transactions(&mut self, database: &DatabaseName) -> Result<(), StepError> {
        for prepared in catalog::find_prepared_in(&mut self.session, database).await? {
            let opened = self.open_for_clean_up(&prepared.database, prepared.is_open).await?;
            let rolled_back = self.roll_back_transaction(&prepared.database, &prepared.gid, &prepared.owner).await;
            self.close_after_clean_up(opened).await?;
            rolled_back?;
        }
        for prepared in holders::find_prepared_holders(&mut self.session, database).await? {
            self.roll_back_transaction(&prepared.database, &prepared.gid, &prepared.owner).await?;
        }
        Ok(())
    }

    async fn roll_back_transaction(&mut self, database: &str, gid: &str, owner: &str) -> Result<(), StepError> {
        let by = || format!("the prepared transaction {gid:?} of {owner}");
        let in_use = || StepError::from(ClusterError::InUse { database: database.into(), by: by() });
        let role: RoleName = owner.parse().map_err(|_| in_use())?;
        let admin = self.ownership.admin.clone();
        let is_member = self.is_member(&role).await?;
        match membership::take(&mut self.session, &role, &admin).await {
            // The transaction belongs to a superuser or to another application; the admin role may not act as its
            // owner.
            Err(ClusterError::Sql { source, .. }) if sqlstate::is(&source, sqlstate::INSUFFICIENT_PRIVILEGE) => {
                return Err(in_use());
            }
            taken => taken?,
        }
        let roll_back = async {
            let mut inside = self.open_session_in(&DatabaseName::from_catalog(database)).await?;
            terminate::roll_back_prepared(&mut inside, database, gid, owner).await?;
            session::close(inside).await;
            Ok(())
        };
        let rolled_back = roll_back.await;
        if !is_member {
            membership::give_back(&mut self.session, &role, &admin).await?;
        }
        rolled_back
    }

    /// Whether the provisioner may act as this role already. Then its membership belongs to an earlier call and is
    /// kept.
    async fn is_member(&mut self, role: &RoleName) -> Result<bool, ClusterError> {
        const MEMBER: &str = "SELECT EXISTS (SELECT FROM pg_roles r \
            WHERE r.rolname = $1 AND NOT r.rolsuper AND pg_has_role(session_user, r.oid, 'USAGE'))";
        let member = sqlx::query_scalar(MEMBER).bind(role.as_str()).fetch_one(&mut self.session).await;
        member.map_err(ClusterError::sql("looking for a membership"))
    }

    /// Removes what depends on this role in other databases; the caller drops the role next. If one database is the
    /// last obstacle, the role is dropped in the same transaction, so that a neighbour tenant that keeps granting to
    /// the role cannot add a grant in between.
    pub(super) async fn drop_dependents_elsewhere(&mut self, role: &RoleName) -> Result<(), StepError> {
        let dependent_databases =
            dependents::find_dependent_databases(&mut self.session, role, &self.ownership.admin).await?;
        let is_last = dependent_databases.len() == 1;
        for dependent in dependent_databases {
            if !dependent.is_open && !dependent.is_ours {
                continue;
            }
            let opened = self.open_for_clean_up(&dependent.database, dependent.is_open).await?;
            let dropped = self.drop_owned_in(role, &dependent, is_last).await;
            self.close_after_clean_up(opened).await?;
            dropped?;
        }
        Ok(())
    }

    /// Terminates the sessions in every other tenant database in which something depends on this role. Called when a
    /// tenant there grants to the role faster than the grants can be removed.
    pub(super) async fn terminate_neighbour_sessions(&mut self, role: &RoleName) -> Result<(), StepError> {
        let admin = self.ownership.admin.clone();
        for dependent in
            dependents::find_dependent_databases(&mut self.session, role, &admin).await?.iter().filter(|p| p.is_ours)
        {
            let database = &dependent.database;
            tracing::warn!(database, %role, "terminating sessions whose grants keep another tenant's role");
            holders::terminate_sessions_in(&mut self.session, database, &self.server, &admin).await?;
        }
        Ok(())
    }

    async fn drop_owned_in(
        &mut self, role: &RoleName, dependent: &DependentDatabase, is_last: bool,
    ) -> Result<(), StepError> {
        let mut inside = match self.open_session_in(&DatabaseName::from_catalog(&dependent.database)).await {
            Ok(inside) => inside,
            // Without CONNECT nothing can be removed there. The later DROP ROLE fails and its error names the database.
            Err(error) => {
                let database = &dependent.database;
                tracing::warn!(database, %role, %error, "cannot connect to a database whose objects depend on a role");
                return Ok(());
            }
        };
        dependents::verify_no_event_trigger(&mut inside, &dependent.database).await?;
        let admin = self.ownership.admin.clone();
        let grantors = dependent.grantors.iter().filter_map(|g| g.parse::<RoleName>().ok()).map(Some);
        // A member of an object's owner revokes as the owner, which cannot revoke grants of another role. So run DROP
        // OWNED first without a grantor, then with each possible grantor alone.
        for grantor in std::iter::once(None).chain(grantors) {
            if is_last && try_execute(&mut inside, ddl::drop_owned_and_role(role, grantor.as_ref(), &admin)).await? {
                break;
            }
            try_execute(&mut inside, ddl::drop_owned(role, grantor.as_ref(), &admin)).await?;
        }
        session::close(inside).await;
        Ok(())
    }

    /// Opens a closed database for a clean-up. Returns its name and connection limit for
    /// [`close_after_clean_up`](Self::close_after_clean_up), or `None` if it was open.
    async fn open_for_clean_up(&mut self, database: &str, is_open: bool) -> Result<Option<(String, i32)>, StepError> {
        if is_open {
            return Ok(None);
        }
        dependents::verify_logins_refused(&mut self.session, database, &self.server).await?;
        let found = catalog::find_database(&mut self.session, &DatabaseName::from_catalog(database)).await?;
        let limit = found.map_or(-1, |found| found.own_limit());
        ddl::open_for_clean_up(database).run(&mut self.session, "opening a database for a clean-up").await?;
        Ok(Some((String::from(database), limit)))
    }

    async fn close_after_clean_up(&mut self, opened: Option<(String, i32)>) -> Result<(), StepError> {
        if let Some((database, limit)) = opened {
            let close = ddl::close_after_clean_up(&database, limit);
            close.run(&mut self.session, "closing a database after a clean-up").await?;
        }
        Ok(())
    }
}

/// Runs the statements. `false` if the grantor is not one of our roles, if another object depends on the role, or if a
/// concurrent session has changed the same row. The session is usable in each case.
async fn try_execute(session: &mut PgConnection, block: ddl::Ddl) -> Result<bool, ClusterError> {
    match block.execute(session).await {
        Ok(()) => Ok(true),
        Err(e)
            if sqlstate::is_contended(&e)
                || [sqlstate::INSUFFICIENT_PRIVILEGE, sqlstate::DEPENDENT_OBJECTS, sqlstate::UNDEFINED_OBJECT]
                    .iter()
                    .any(|code| sqlstate::is(&e, code)) =>
        {
            ddl::roll_back().run(session, "rolling back").await?;
            Ok(false)
        }
        Err(source) => Err(ClusterError::Sql { phase: "removing what depends on a role", source }),
    }
}
