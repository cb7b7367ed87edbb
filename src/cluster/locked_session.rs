use crate::cluster::pg::ownership::Ownership;
use crate::cluster::pg::session::{Purpose, Target};
use crate::cluster::pg::{ddl, ensure, scram};
use crate::directory::AppAccess;
use crate::error::{ClusterError, StepError};
use crate::names::{DatabaseName, RoleName};
use crate::names::{GroupRoles, TenantNames};
use crate::server::DatabaseServer;
use crate::sqlstate;
use futures_util::future::try_join;
use secrecy::SecretString;
use sqlx::PgConnection;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

mod clean;
mod limits;
mod open;
mod refuse;
mod remove;
mod standby;
pub(super) use open::Preconnected;
pub(crate) use refuse::Closed;
pub(crate) use remove::RetiredLogin;
pub(crate) use standby::Standby;

/// How long a session may go on that was opened with a login at the moment when it was shut.
const LAST_MOMENT: Duration = Duration::from_secs(2);
/// How long a session may be connecting without showing by which login.
const SETTLING: Duration = Duration::from_secs(2);

/// One worker's hold of a server: the session that has the subject's lock and runs the cluster statements. It is never
/// opened again: after an error the whole hold is made anew, under a new epoch.
pub(crate) struct LockedSession {
    session: PgConnection,
    server: DatabaseServer,
    password: SecretString,
    ownership: Ownership,
    name: String,
    _place: OwnedSemaphorePermit,
}

impl LockedSession {
    /// None of these names may be there yet.
    pub(crate) async fn precheck(&mut self, names: &TenantNames, login: &RoleName) -> Result<(), StepError> {
        Ok(ensure::precheck(&mut self.session, names, login).await?)
    }
    /// The two NOLOGIN roles.
    pub(crate) async fn ensure_roles(&mut self, names: &TenantNames) -> Result<(), StepError> {
        Ok(ensure::create_group_roles(&mut self.session, &names.roles, &self.ownership).await?)
    }
    /// The database, closed to everybody.
    pub(crate) async fn ensure_database(&mut self, names: &TenantNames) -> Result<(), StepError> {
        Ok(ensure::create_database(&mut self.session, &names.database, &self.ownership).await?)
    }
    /// Who may connect; then it opens.
    pub(crate) async fn ensure_access(&mut self, names: &TenantNames, temp_tables: bool) -> Result<(), StepError> {
        let open = ddl::open_database(names, &self.ownership.marker, temp_tables);
        Ok(open.run(&mut self.session, "opening the database").await?)
    }
    /// Schema `public` goes to the owner.
    pub(crate) async fn ensure_schema(&mut self, names: &TenantNames) -> Result<(), StepError> {
        own_schema(enter(&self.server, &names.database, &self.password, &self.name), names, &self.ownership).await
    }
    /// The same, and the application's login beside it: the way into a new database is long, and neither needs the other.
    pub(crate) async fn ensure_schema_and_login(
        &mut self, names: &TenantNames, login: &ddl::Login<'_>,
    ) -> Result<(), StepError> {
        let Self { session, server, password, ownership, name, .. } = self;
        let schema = own_schema(enter(server, &names.database, password, name), names, ownership);
        let login = async { Ok(ensure::create_login(session, login, ownership).await?) };
        try_join(schema, login).await.map(drop)
    }
    /// The login that runs migrations, with a password that only this worker knows.
    pub(crate) async fn ensure_migrator(
        &mut self, names: &TenantNames, verifier: &scram::Verifier,
    ) -> Result<(), StepError> {
        let login = ddl::Login { name: &names.migrator, acts_as: &names.roles.owner, limit: 3, verifier };
        Ok(ensure::create_login(&mut self.session, &login, &self.ownership).await?)
    }
    /// The application's login.
    pub(crate) async fn ensure_login(
        &mut self, names: &TenantNames, login: &RoleName, access: AppAccess, limit: i32, password: &SecretString,
    ) -> Result<(), StepError> {
        let verifier = scram::verifier(password).await;
        self.ensure_sealed(names, login, access, limit, &verifier).await
    }
    /// The same, by what the server gets of its password.
    pub(crate) async fn ensure_sealed(
        &mut self, names: &TenantNames, login: &RoleName, access: AppAccess, limit: i32, verifier: &scram::Verifier,
    ) -> Result<(), StepError> {
        let acts_as = ddl::acts_as(&names.roles, access);
        let login = ddl::Login { name: login, acts_as, limit, verifier };
        Ok(ensure::create_login(&mut self.session, &login, &self.ownership).await?)
    }
    /// A second session of the provisioner, in a tenant's database: for catalog statements alone, since whatever runs
    /// code of the tenant would run it with the provisioner's rights.
    async fn enter(&self, database: &DatabaseName) -> Result<PgConnection, StepError> {
        enter(&self.server, database, &self.password, &self.name).await
    }
}

async fn enter(
    server: &DatabaseServer, database: &DatabaseName, password: &SecretString, name: &str,
) -> Result<PgConnection, StepError> {
    match provisioner(server, database, password, name, Purpose::Cluster).await {
        // The first session came in with this password, so it is another one by now: the next hold reads it.
        Err(ClusterError::Connect { source, .. }) if sqlstate::is_refused_login(&source) => {
            Err(StepError::retry(source))
        }
        entered => Ok(entered?),
    }
}

async fn own_schema(
    inside: impl Future<Output = Result<PgConnection, StepError>>, names: &TenantNames, by: &Ownership,
) -> Result<(), StepError> {
    let mut inside = inside.await?;
    ddl::own_schema(&names.roles, &by.admin).run(&mut inside, "giving the schema to its owner").await?;
    crate::cluster::pg::session::close(inside).await;
    Ok(())
}

async fn provisioner(
    server: &DatabaseServer, database: &DatabaseName, password: &SecretString, application_name: &str, purpose: Purpose,
) -> Result<PgConnection, ClusterError> {
    let role = &server.login;
    Target { server, database, role, password, application_name, purpose }.open().await
}

/// As the migrator: what the application may do with whatever the owner makes.
pub(crate) async fn set_defaults(session: &mut PgConnection, roles: &GroupRoles) -> Result<(), StepError> {
    Ok(ddl::defaults(&roles.app).run(session, "setting default privileges").await?)
}

/// As the migrator: the application reads the ledger and does not write it.
pub(crate) async fn close_ledger(session: &mut PgConnection, table: &str, app: &RoleName) -> Result<(), StepError> {
    Ok(ddl::close_ledger(table, app).run(session, "closing the ledger").await?)
}
