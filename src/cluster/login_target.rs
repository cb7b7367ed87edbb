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

/// A way into one database: who, where, and with which password. No Debug.
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

    /// Opens it, under the worker's name. The epoch is asked for after that: a session that a successor did not find is
    /// one that stops here.
    pub(crate) async fn open(&self, run: &Execution) -> Result<PgConnection, StepError> {
        let opened = self.target(&super::application_name(run), Purpose::Content).open().await?;
        run.check().await?;
        Ok(opened)
    }

    fn target<'a>(&'a self, application_name: &'a str, purpose: Purpose) -> Target<'a> {
        let Self { server, database, role, password } = self;
        Target { server, database, role, password, application_name, purpose }
    }

    /// Whether the login works, and as whom it works: without its membership a session silently runs as the login.
    pub(crate) async fn probe(&self, run: &Execution, roles: &GroupRoles, access: AppAccess) -> Result<(), StepError> {
        let mut opened = self.target(&super::application_name(run), Purpose::Probe).open().await?;
        // It only looks, so it need not know first whether a successor is there.
        let (checked, identity) = join(run.check(), catalog::identity(&mut opened)).await;
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
