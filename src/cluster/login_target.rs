//! Logging in to one database as one role, with a password.
//!
//! The sagas get a [`LoginTarget`] from a [`DatabaseServer`] for the migrator, which they [`open`](LoginTarget::open),
//! and for the application's login, which they [`probe`](LoginTarget::probe). A session is used only after the epoch
//! was checked.
use crate::cluster::pg::session::{Purpose, Target};
use crate::cluster::pg::{catalog, ddl, session};
use crate::directory::AppAccess;
use crate::error::{ClusterError, StepError};
use crate::names::GroupRoles;
use crate::names::{DatabaseName, RoleName};
use crate::saga::Execution;
use crate::server::DatabaseServer;
use futures_util::future::join;
use secrecy::SecretString;
use sqlx::PgConnection;

/// A server, a database, a role and its password. Has no `Debug`, so that the password cannot be printed.
#[derive(Clone)]
pub(crate) struct LoginTarget {
    server: DatabaseServer,
    database: DatabaseName,
    role: RoleName,
    password: SecretString,
}

impl LoginTarget {
    pub(super) fn new(server: DatabaseServer, database: DatabaseName, role: RoleName, password: SecretString) -> Self {
        Self { server, database, role, password }
    }

    /// Opens a session for migrations, with the worker's `application_name`, and *then* checks the epoch. If a new
    /// worker has taken over and did not find this session, the check fails here.
    pub(crate) async fn open(&self, run: &Execution) -> Result<PgConnection, StepError> {
        let opened = self.target(&super::application_name(run), Purpose::Content).open().await?;
        run.check().await?;
        Ok(opened)
    }

    fn target<'a>(&'a self, application_name: &'a str, purpose: Purpose) -> Target<'a> {
        let Self { server, database, role, password } = self;
        Target { server, database, role, password, application_name, purpose }
    }

    /// Verifies that the login works and that its sessions run as the expected group role. A login that has lost the
    /// membership in its group gets a session all the same, which runs as the login itself.
    ///
    /// # Errors
    /// `Identity` names the role as which the session runs.
    pub(crate) async fn probe(&self, run: &Execution, roles: &GroupRoles, access: AppAccess) -> Result<(), StepError> {
        let mut opened = self.target(&super::application_name(run), Purpose::Probe).open().await?;
        // The probe only reads, so it may run before the epoch check has answered.
        let (checked, identity) = join(run.check(), catalog::read_identity(&mut opened)).await;
        checked?;
        let (session_user, found, database) = identity?;
        session::close(opened).await;
        let expected = ddl::acts_as(roles, access).to_string();
        if session_user == self.role.as_str() && found == expected && database == self.database.as_str() {
            return Ok(());
        }
        Err(ClusterError::Identity { login: self.role.to_string(), found, expected, database }.into())
    }
}
