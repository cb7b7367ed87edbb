//! Clean-ups in other databases than the one of all cluster statements: prepared transactions, and what keeps a role from
//! being dropped. What a clean-up opens or joins, it closes and leaves in the same call; recovery does it for a worker
//! that died in between (see [`dependents::close_left_open`] and [`membership::give_back_left`]).
use super::LockedSession;
use crate::cluster::pg::dependents::{self, DependentDatabase};
use crate::cluster::pg::{catalog, ddl, holders, membership, session, terminate};
use crate::error::{ClusterError, StepError};
use crate::names::TenantNames;
use crate::names::{DatabaseName, RoleName};
use crate::sqlstate;
use sqlx::PgConnection;

impl LockedSession {
    /// Rolls back the prepared transactions of the tenant's roles, in any open database. There is no session to end that
    /// holds a login's row locked for them.
    pub(super) async fn roll_back_prepared(
        &mut self, names: &TenantNames, logins: &[&RoleName],
    ) -> Result<(), StepError> {
        let roles: Vec<&RoleName> = logins.iter().copied().chain([&names.roles.owner, &names.roles.app]).collect();
        let found = catalog::prepared_by(&mut self.session, &roles).await?;
        for prepared in found.iter().filter(|p| p.is_open) {
            self.roll_back_one(&prepared.database, &prepared.gid, &prepared.owner).await?;
        }
        Ok(())
    }

    /// Rolls back what keeps the database from being dropped: the prepared transactions in it, and those of any tenant that
    /// hold its object locked. Its logins must be refused.
    pub(super) async fn roll_back_in_the_way(&mut self, database: &DatabaseName) -> Result<(), StepError> {
        for prepared in catalog::prepared_in(&mut self.session, database).await? {
            let place = self.open_place(&prepared.database, prepared.is_open).await?;
            let ended = self.roll_back_one(&prepared.database, &prepared.gid, &prepared.owner).await;
            self.close_place(place).await?;
            ended?;
        }
        for prepared in holders::prepared_holders(&mut self.session, database).await? {
            self.roll_back_one(&prepared.database, &prepared.gid, &prepared.owner).await?;
        }
        Ok(())
    }

    async fn roll_back_one(&mut self, database: &str, gid: &str, owner: &str) -> Result<(), StepError> {
        let by = || format!("the prepared transaction {gid:?} of {owner}");
        let in_use = || StepError::from(ClusterError::InUse { database: database.into(), by: by() });
        let role: RoleName = owner.parse().map_err(|_| in_use())?;
        let admin = self.ownership.admin.clone();
        let is_member = self.is_member(&role).await?;
        match membership::take(&mut self.session, &role, &admin).await {
            // A superuser's, or another application's.
            Err(ClusterError::Sql { source, .. }) if sqlstate::is(&source, sqlstate::INSUFFICIENT_PRIVILEGE) => {
                return Err(in_use());
            }
            taken => taken?,
        }
        let ended = async {
            let mut inside = self.enter(&DatabaseName::existing(database)).await?;
            terminate::roll_back_prepared(&mut inside, database, gid, owner).await?;
            session::close(inside).await;
            Ok(())
        };
        let ended = ended.await;
        if !is_member {
            membership::give_back(&mut self.session, &role, &admin).await?;
        }
        ended
    }

    async fn is_member(&mut self, role: &RoleName) -> Result<bool, ClusterError> {
        const MEMBER: &str = "SELECT EXISTS (SELECT FROM pg_roles r \
            WHERE r.rolname = $1 AND NOT r.rolsuper AND pg_has_role(session_user, r.oid, 'USAGE'))";
        let member = sqlx::query_scalar(MEMBER).bind(role.as_str()).fetch_one(&mut self.session).await;
        member.map_err(ClusterError::sql("looking for a membership"))
    }

    /// Removes what depends on this role in other databases. The role is dropped next; where one database alone keeps it,
    /// in the same transaction, so that a neighbour which grants to it all the time has no moment in between.
    pub(super) async fn clear_elsewhere(&mut self, role: &RoleName) -> Result<(), StepError> {
        let dependent_databases =
            dependents::dependent_databases(&mut self.session, role, &self.ownership.admin).await?;
        let is_last = dependent_databases.len() == 1;
        for place in dependent_databases {
            if !place.is_open && !place.is_ours {
                continue;
            }
            let opened = self.open_place(&place.database, place.is_open).await?;
            let cleared = self.drop_owned_in(role, &place, is_last).await;
            self.close_place(opened).await?;
            cleared?;
        }
        Ok(())
    }

    /// Ends the sessions in every other database of ours in which something depends on this role: a tenant there grants to
    /// it as fast as that is removed.
    pub(super) async fn end_neighbours(&mut self, role: &RoleName) -> Result<(), StepError> {
        let admin = self.ownership.admin.clone();
        for place in
            dependents::dependent_databases(&mut self.session, role, &admin).await?.iter().filter(|p| p.is_ours)
        {
            tracing::warn!(database = place.database, %role, "the sessions of a tenant that keeps a role of another are ended");
            holders::end_sessions_in(&mut self.session, &place.database, &self.server, &admin).await?;
        }
        Ok(())
    }

    async fn drop_owned_in(
        &mut self, role: &RoleName, place: &DependentDatabase, is_last: bool,
    ) -> Result<(), StepError> {
        let mut inside = match self.enter(&DatabaseName::existing(&place.database)).await {
            Ok(inside) => inside,
            // Without CONNECT there is nothing to do for us: the role's drop names the database.
            Err(error) => {
                tracing::warn!(database = place.database, %role, %error, "what keeps a role is not reached");
                return Ok(());
            }
        };
        dependents::verify_no_event_trigger(&mut inside, &place.database).await?;
        let admin = self.ownership.admin.clone();
        let grantors = place.grantors.iter().filter_map(|g| g.parse::<RoleName>().ok()).map(Some);
        // First as itself; then as each possible grantor alone: a member of the owner acts as the owner, who cannot revoke
        // what another role has granted.
        for grantor in std::iter::once(None).chain(grantors) {
            if is_last && attempt(&mut inside, ddl::drop_owned_and_role(role, grantor.as_ref(), &admin)).await? {
                break;
            }
            attempt(&mut inside, ddl::drop_owned(role, grantor.as_ref(), &admin)).await?;
        }
        session::close(inside).await;
        Ok(())
    }

    /// Opens a closed database for a clean-up; `None` if it is open anyway.
    async fn open_place(&mut self, database: &str, is_open: bool) -> Result<Option<(String, i32)>, StepError> {
        if is_open {
            return Ok(None);
        }
        dependents::verify_logins_refused(&mut self.session, database, &self.server).await?;
        let found = catalog::database(&mut self.session, &DatabaseName::existing(database)).await?;
        let limit = found.map_or(-1, |found| found.own_limit());
        ddl::open_for_clean_up(database).run(&mut self.session, "opening a database for a clean-up").await?;
        Ok(Some((String::from(database), limit)))
    }

    async fn close_place(&mut self, opened: Option<(String, i32)>) -> Result<(), StepError> {
        if let Some((database, limit)) = opened {
            let close = ddl::close_after_clean_up(&database, limit);
            close.run(&mut self.session, "closing a database after a clean-up").await?;
        }
        Ok(())
    }
}

/// Whether it was done. `false`: the grantor is no role of ours, something else keeps the role, or a neighbour was faster.
async fn attempt(session: &mut PgConnection, block: ddl::Ddl) -> Result<bool, ClusterError> {
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
        Err(source) => Err(ClusterError::Sql { phase: "removing what keeps a role", source }),
    }
}
