//! Creating the temporary login of a person.
use super::LockedSession;
use crate::cluster::pg::{catalog, ddl, ensure, scram};
use crate::directory::AppAccess;
use crate::error::{ClusterError, StepError};
use crate::names::{RoleName, TenantNames};
use crate::sqlstate;
use std::time::Duration;

/// Sessions that a person may have with one temporary login: one to work in, and one to look at it or to end it.
const SESSIONS: i32 = 2;

/// What a temporary login may do, and for how long.
pub(crate) struct TemporaryRights {
    pub(crate) access: AppAccess,
    pub(crate) read_only: bool,
    /// Time until the server refuses the password, counted from now by the server's own clock.
    pub(crate) remaining: Duration,
}

impl LockedSession {
    /// Makes sure that a temporary login exists with this verifier. PostgreSQL refuses its password after the time in
    /// `rights`, also if no node of the application runs then.
    ///
    /// Only one process has the password, and the name is never used twice. So a role of ours with this name was created
    /// by an earlier attempt whose answer was lost: one block commits the role with its expiry and its password.
    ///
    /// # Errors
    /// `Foreign` if another role has this name.
    pub(crate) async fn create_temporary_login(
        &mut self, names: &TenantNames, login: &RoleName, rights: &TemporaryRights, verifier: &scram::Verifier,
    ) -> Result<(), StepError> {
        const PHASE: &str = "creating a temporary login";
        let valid_until = catalog::time_after(&mut self.session, rights.remaining).await?;
        let acts_as = ddl::acts_as(&names.roles, rights.access);
        let login = ddl::Login { name: login, acts_as, limit: SESSIONS, verifier };
        let temporary = ddl::TemporaryLogin { login, valid_until: &valid_until, read_only: rights.read_only };
        let create = ddl::create_temporary_login(&temporary, &self.ownership.marker);
        match ensure::try_create(&mut self.session, create.first, sqlstate::DUPLICATE_OBJECT, PHASE).await? {
            true => Ok(create.password.run(&mut self.session, PHASE).await?),
            false if self.is_own_login(temporary.login.name).await? => Ok(()),
            false => Err(ClusterError::Foreign { kind: "role", name: temporary.login.name.to_string() }.into()),
        }
    }
}
