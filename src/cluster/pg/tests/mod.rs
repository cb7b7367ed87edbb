//! This floor against a real server: one server for the process, one installation of its own for each test.
use super::session::{Purpose, Target};
use super::{bootstrap, ownership::Ownership, scram};
use crate::error::ClusterError;
use crate::names::{DatabaseName, RoleName};
use crate::server::{DatabaseServer, ServerNames};
use crate::testing::TestServer;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection};
use uuid::Uuid;

mod ending;
mod keys;
mod locks;
mod set_up;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Who runs block (a).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// A superuser.
    Superuser,
    /// A login that itself has CREATEDB and CREATEROLE alone, as on a managed service.
    Managed,
}

/// Block (a), under names that no other test has.
pub(crate) struct Installation {
    pub(crate) id: Uuid,
    pub(crate) server: DatabaseServer,
    pub(crate) blue: SecretString,
    pub(crate) green: SecretString,
    superuser: PgConnectOptions,
    admin: PgConnectOptions,
}

impl Installation {
    /// Set up.
    pub(crate) async fn new(by: By) -> Outcome<Self> {
        let it = Self::planned(by).await?;
        it.set_up().await?;
        Ok(it)
    }

    /// Names and secrets; nothing of it is on the server yet, apart from its admin.
    pub(crate) async fn planned(by: By) -> Outcome<Self> {
        Self::planned_on(TestServer::shared().await?, by).await
    }

    /// The same on a server of the test's own.
    pub(crate) async fn planned_on(server: &TestServer, by: By) -> Outcome<Self> {
        let superuser = server.admin_options();
        let id = Uuid::now_v7();
        let names = ServerNames::with_prefix(&format!("t{}", &id.simple().to_string()[20..]))?;
        let rights = if by == By::Superuser { "SUPERUSER" } else { "CREATEDB CREATEROLE" };
        let admin = dba(&superuser, &names, rights).await?;
        let (host, port) = (superuser.get_host().to_owned(), superuser.get_port());
        let server = DatabaseServer::new("main".parse()?, host, port, names);
        let (blue, green) = (SecretString::from("p@ss/w?rd:1#%"), SecretString::from("it's \\ \"Größe\" ½"));
        Ok(Self { id, server, blue, green, superuser, admin })
    }

    pub(crate) async fn set_up(&self) -> Outcome {
        let names = &self.server.names;
        let mut admin = self.admin().await?;
        let verifiers = (scram::verifier(&self.blue).await, scram::verifier(&self.green).await);
        bootstrap::roles(&mut admin, names, [&verifiers.0, &verifiers.1], &self.marker()).await?;
        bootstrap::maintenance(&mut admin, names).await?;
        bootstrap::close_maintenance(&mut self.provisioner().await?, &names.maintenance).await?;
        Ok(())
    }

    /// The comment on the roles of block (a).
    pub(crate) fn marker(&self) -> String {
        format!("tenantry {}", self.id)
    }
    /// What makes a tenant's objects ours.
    pub(crate) fn ownership(&self) -> Ownership {
        Ownership { marker: format!("tenantry {} it's a \\ tenant", self.id), admin: self.server.names.admin.clone() }
    }

    /// The provisioner, in the maintenance database.
    pub(crate) async fn provisioner(&self) -> Result<PgConnection, ClusterError> {
        self.named("tenantry/test").await
    }
    pub(crate) async fn named(&self, application_name: &str) -> Result<PgConnection, ClusterError> {
        let (server, database, role) = (&self.server, &self.server.names.maintenance, &self.server.names.blue);
        let (password, purpose) = (&self.blue, Purpose::Cluster);
        Target { server, database, role, password, application_name, purpose }.open().await
    }
    /// Any login, as an application would connect.
    pub(crate) async fn login(
        &self, role: &RoleName, password: &SecretString, database: &DatabaseName,
    ) -> Result<PgConnection, sqlx::Error> {
        self.options(role, password).database(database.as_str()).connect().await
    }
    pub(crate) fn options(&self, role: &RoleName, password: &SecretString) -> PgConnectOptions {
        self.superuser.clone().username(role.as_str()).password(password.expose_secret())
    }
    /// Who runs block (a), in `postgres`.
    pub(crate) async fn admin(&self) -> Result<PgConnection, sqlx::Error> {
        self.admin.clone().options([("search_path", "pg_catalog")]).connect().await
    }
    pub(crate) async fn superuser(&self, database: &str) -> Result<PgConnection, sqlx::Error> {
        self.superuser.clone().database(database).connect().await
    }
    /// The name of a database that no other test has.
    pub(crate) fn database(&self, rest: &str) -> DatabaseName {
        format!("{}{rest}", self.prefix()).parse().unwrap()
    }
    pub(crate) fn prefix(&self) -> &str {
        self.server.names.admin.as_str().strip_suffix("_admin").unwrap()
    }
}

async fn dba(superuser: &PgConnectOptions, names: &ServerNames, rights: &str) -> Outcome<PgConnectOptions> {
    let name = names.admin.as_str().replace("_admin", "_dba");
    let mut session = superuser.connect().await?;
    sql(&mut session, &format!("CREATE ROLE \"{name}\" LOGIN {rights} PASSWORD '{DBA}'")).await?;
    Ok(superuser.clone().username(&name).password(DBA))
}

/// The password of who runs block (a).
const DBA: &str = "dba";

/// Runs a test's own SQL.
#[expect(clippy::disallowed_methods, reason = "the SQL of a test")]
pub(crate) async fn sql(session: &mut PgConnection, text: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(session).await.map(drop)
}

/// One value that a test asks for.
#[expect(clippy::disallowed_methods, reason = "the SQL of a test")]
pub(crate) async fn ask<T>(session: &mut PgConnection, text: &str) -> Result<T, sqlx::Error>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    sqlx::query_scalar(AssertSqlSafe(text.to_owned())).fetch_one(session).await
}

/// The SQLSTATE of a refusal; `00000` if there was none.
pub(crate) fn code<T>(done: Result<T, sqlx::Error>) -> String {
    match done {
        Ok(_) => String::from("00000"),
        Err(e) => crate::sqlstate::code(&e).map_or_else(|| e.to_string(), |c| c.into_owned()),
    }
}
