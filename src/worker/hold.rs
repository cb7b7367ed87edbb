use crate::database::{AppAccess, DatabaseServer, GroupRoles, TenantNames};
use crate::error::{ClusterError, StepError};
use crate::ident::{DatabaseName, RoleName};
use crate::pg::ensure::Ownership;
use crate::pg::session::{Purpose, Target};
use crate::pg::{catalog, ddl, end, ensure, scram};
use crate::sqlstate;
use futures_util::future::try_join;
use secrecy::SecretString;
use sqlx::PgConnection;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

mod open;
mod standby;
pub(super) use open::Opened;
pub(crate) use standby::Standby;

/// How long a session may go on that was opened with a login at the moment when it was shut.
const LAST_MOMENT: Duration = Duration::from_secs(2);
/// How long a session may be connecting without showing by which login.
const SETTLING: Duration = Duration::from_secs(2);

/// One worker's hold of a server: the session that has the subject's lock and runs the cluster statements. It is never
/// opened again: after an error the whole hold is made anew, under a new epoch.
pub(crate) struct Hold {
    session: PgConnection,
    server: DatabaseServer,
    password: SecretString,
    ownership: Ownership,
    name: String,
    /// Seen to be ours under this very lock, a moment ago.
    ours: Option<RoleName>,
    _place: OwnedSemaphorePermit,
}

impl Hold {
    /// None of these names may be there yet.
    pub(crate) async fn survey(&mut self, names: &TenantNames, login: &RoleName) -> Result<(), StepError> {
        Ok(ensure::survey(&mut self.session, names, login).await?)
    }
    /// The two NOLOGIN roles.
    pub(crate) async fn ensure_roles(&mut self, names: &TenantNames) -> Result<(), StepError> {
        Ok(ensure::groups(&mut self.session, &names.roles, &self.ownership).await?)
    }
    /// The database, closed to everybody.
    pub(crate) async fn ensure_database(&mut self, names: &TenantNames) -> Result<(), StepError> {
        Ok(ensure::database(&mut self.session, &names.database, &self.ownership).await?)
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
        let login = async { Ok(ensure::login(session, login, ownership).await?) };
        try_join(schema, login).await.map(drop)
    }
    /// The login that runs migrations, with a password that only this worker knows.
    pub(crate) async fn ensure_migrator(
        &mut self, names: &TenantNames, verifier: &scram::Verifier,
    ) -> Result<(), StepError> {
        let login = ddl::Login { name: &names.migrator, acts_as: &names.roles.owner, limit: 3, verifier };
        Ok(ensure::login(&mut self.session, &login, &self.ownership).await?)
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
        Ok(ensure::login(&mut self.session, &login, &self.ownership).await?)
    }
    /// Nobody comes in by these logins or as the migrator, and nobody is left in.
    pub(crate) async fn refuse(&mut self, names: &TenantNames, logins: &[RoleName]) -> Result<(), StepError> {
        let all: Vec<&RoleName> = logins.iter().chain([&names.migrator]).collect();
        ensure::refused(&mut self.session, &names.database, &all, &self.ownership).await?;
        Ok(())
    }
    /// This login comes in again.
    pub(crate) async fn admit(&mut self, login: &RoleName) -> Result<(), StepError> {
        Ok(ensure::admitted(&mut self.session, login, &self.ownership).await?)
    }
    /// As [`refuse`](Self::refuse), and the database is closed to every login.
    pub(crate) async fn shut(&mut self, names: &TenantNames, logins: &[RoleName]) -> Result<(), StepError> {
        self.refuse(names, logins).await?;
        Ok(ensure::closed(&mut self.session, &names.database, &self.ownership).await?)
    }
    /// The database is open, and this login comes in again.
    pub(crate) async fn reopen(&mut self, names: &TenantNames, login: &RoleName) -> Result<(), StepError> {
        Ok(ensure::opened(&mut self.session, &names.database, login, &self.ownership).await?)
    }
    /// Those of these logins that are there come in again.
    pub(crate) async fn admit_made(&mut self, logins: &[RoleName]) -> Result<(), StepError> {
        Ok(ensure::made_admitted(&mut self.session, logins, &self.ownership).await?)
    }
    /// One login: no session, no role. What it made by accident goes to `heir`, whom it acts as.
    pub(crate) async fn remove_login(
        &mut self, names: &TenantNames, login: &RoleName, heir: &RoleName,
    ) -> Result<(), StepError> {
        let ours = ensure::refused(&mut self.session, &names.database, &[login], &self.ownership).await?;
        if ours.is_empty() { Ok(()) } else { self.drop_refused(names, login, heir).await }
    }

    /// While the worker waits for something else: what removing this login asks for takes less time afterwards.
    pub(crate) async fn look_ahead(&mut self, names: &TenantNames, login: &RoleName) -> Result<(), StepError> {
        let ours = catalog::ours(&mut self.session, [login], &self.ownership.marker, false).await?;
        self.ours = ours.first().map(|ours| (*ours).clone());
        Ok(end::look_ahead(&mut self.session, &names.database, login).await?)
    }

    async fn drop_refused(&mut self, names: &TenantNames, login: &RoleName, heir: &RoleName) -> Result<(), StepError> {
        if ensure::dropped(&mut self.session, login).await? {
            return Ok(());
        }
        let mut inside = self.enter(&names.database).await?;
        ddl::adopt(login, heir).run(&mut inside, "adopting what the login made").await?;
        crate::pg::session::close(inside).await;
        self.gone(login).await
    }
    /// One login that another one has replaced. Whoever uses it still has `grace` to go on to the new one by itself: first
    /// with the old one still good, and then, for whoever came in at the last moment, a little longer.
    pub(crate) async fn retire_login(
        &mut self, names: &TenantNames, login: &RoleName, heir: &RoleName, grace: Duration, standbys: &[Standby],
    ) -> Result<(), StepError> {
        let mut is_ours = self.ours.take().is_some_and(|ours| ours == *login);
        if !grace.is_zero() {
            self.drained(login, grace, standbys).await?;
            is_ours = false;
        }
        if !ensure::locked_out(&mut self.session, login, is_ours, &self.ownership).await? {
            return Ok(());
        }
        // Who is about to be in comes by the new login, most likely: that is seen in a moment.
        end::connecting(&mut self.session, &names.database, SETTLING).await?;
        if !grace.is_zero() {
            end::drained(&mut self.session, login, LAST_MOMENT.min(grace)).await?;
        }
        end::of_roles(&mut self.session, &[login]).await?;
        // Before it is dropped: of a role that is gone no session can be found.
        self.refuse_on(standbys, names, &[login], grace).await?;
        self.drop_refused(names, login, heir).await
    }
    /// The database alone. The logins are refused first: one that is in the middle of connecting would keep it.
    pub(crate) async fn remove_database(&mut self, names: &TenantNames, logins: &[RoleName]) -> Result<(), StepError> {
        self.refuse(names, logins).await?;
        self.roll_back_prepared(&names.database).await?;
        Ok(ensure::database_absent(&mut self.session, &names.database, &self.ownership).await?)
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

    async fn gone(&mut self, role: &RoleName) -> Result<(), StepError> {
        match ensure::role_absent(&mut self.session, role, &self.ownership).await? {
            true => Ok(()),
            // Something of it is in a database that we do not know of: a person must look, and may then let it go on.
            false => Err(StepError::retry(format!("objects or grants still depend on the role {role}"))),
        }
    }

    async fn roll_back_prepared(&mut self, database: &DatabaseName) -> Result<(), StepError> {
        if !ensure::is_ours(&mut self.session, database, &self.ownership).await? {
            return Ok(());
        }
        let prepared = catalog::prepared(&mut self.session, database).await?;
        if !prepared.is_empty() {
            // A worker that died may have closed it. Nobody else comes in: all logins are refused.
            ddl::reopen_database(database).run(&mut self.session, "opening the database").await?;
        }
        for (gid, owner) in prepared {
            let mut inside = self.enter(database).await?;
            end::prepared(&mut inside, database, &gid, &owner).await?;
            crate::pg::session::close(inside).await;
        }
        Ok(())
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
    crate::pg::session::close(inside).await;
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
