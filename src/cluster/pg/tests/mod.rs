//! Tests of the `pg` module on a real server. All tests of the process share the server; each has an installation of
//! its own, with its own prefix, so they do not affect each other.
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

mod locks;
mod set_up;
mod termination;
mod verifiers;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The rights of the role that sets the server up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// A superuser.
    Superuser,
    /// A login with only CREATEDB and CREATEROLE, as on a managed service.
    Managed,
}

/// A server set-up under names that no other test uses.
pub(crate) struct Installation {
    pub(crate) id: Uuid,
    pub(crate) server: DatabaseServer,
    pub(crate) blue: SecretString,
    pub(crate) green: SecretString,
    superuser: PgConnectOptions,
    admin: PgConnectOptions,
}

impl Installation {
    /// Creates the names and sets the server up.
    pub(crate) async fn new(by: By) -> Outcome<Self> {
        let it = Self::new_without_set_up(by).await?;
        it.set_up().await?;
        Ok(it)
    }

    /// Creates names and secrets. On the server only the server admin exists.
    pub(crate) async fn new_without_set_up(by: By) -> Outcome<Self> {
        Self::new_without_set_up_on(TestServer::shared().await?, by).await
    }

    /// As [`new_without_set_up`](Self::new_without_set_up), on a server of the test's own.
    pub(crate) async fn new_without_set_up_on(server: &TestServer, by: By) -> Outcome<Self> {
        let superuser = server.admin_options();
        let id = Uuid::now_v7();
        let names = ServerNames::with_prefix(&format!("t{}", &id.simple().to_string()[20..]))?;
        let rights = if by == By::Superuser { "SUPERUSER" } else { "CREATEDB CREATEROLE" };
        let admin = create_dba(&superuser, &names, rights).await?;
        let (host, port) = (superuser.get_host().to_owned(), superuser.get_port());
        let server = DatabaseServer::new("main".parse()?, host, port, names);
        let (blue, green) = (SecretString::from("p@ss/w?rd:1#%"), SecretString::from("it's \\ \"Größe\" ½"));
        Ok(Self { id, server, blue, green, superuser, admin })
    }

    pub(crate) async fn set_up(&self) -> Outcome {
        let names = &self.server.names;
        let mut admin = self.admin().await?;
        let verifiers = (scram::derive_verifier(&self.blue).await, scram::derive_verifier(&self.green).await);
        bootstrap::ensure_roles(&mut admin, names, [&verifiers.0, &verifiers.1], &self.marker()).await?;
        bootstrap::ensure_maintenance(&mut admin, names).await?;
        bootstrap::close_maintenance(&mut self.provisioner().await?, &names.maintenance).await?;
        Ok(())
    }

    /// The comment on the roles of the set-up.
    pub(crate) fn marker(&self) -> String {
        format!("tenantry {}", self.id)
    }
    /// The ownership of a tenant's objects, with a marker that needs quoting.
    pub(crate) fn ownership(&self) -> Ownership {
        Ownership { marker: format!("tenantry {} it's a \\ tenant", self.id), admin: self.server.names.admin.clone() }
    }

    /// Opens a session of the provisioner in the maintenance database.
    pub(crate) async fn provisioner(&self) -> Result<PgConnection, ClusterError> {
        self.provisioner_named("tenantry/test").await
    }
    pub(crate) async fn provisioner_named(&self, application_name: &str) -> Result<PgConnection, ClusterError> {
        let (server, database, role) = (&self.server, &self.server.names.maintenance, &self.server.names.blue);
        let (password, purpose) = (&self.blue, Purpose::Cluster);
        Target { server, database, role, password, application_name, purpose }.open().await
    }
    /// Opens a session of any login, as an application would.
    pub(crate) async fn login(
        &self, role: &RoleName, password: &SecretString, database: &DatabaseName,
    ) -> Result<PgConnection, sqlx::Error> {
        self.options(role, password).database(database.as_str()).connect().await
    }
    pub(crate) fn options(&self, role: &RoleName, password: &SecretString) -> PgConnectOptions {
        self.superuser.clone().username(role.as_str()).password(password.expose_secret())
    }
    /// Opens a session of the server admin, in `postgres`.
    pub(crate) async fn admin(&self) -> Result<PgConnection, sqlx::Error> {
        self.admin.clone().options([("search_path", "pg_catalog")]).connect().await
    }
    pub(crate) async fn superuser(&self, database: &str) -> Result<PgConnection, sqlx::Error> {
        self.superuser.clone().database(database).connect().await
    }
    /// A database name with this installation's prefix.
    pub(crate) fn database(&self, rest: &str) -> DatabaseName {
        format!("{}{rest}", self.prefix()).parse().unwrap()
    }
    pub(crate) fn prefix(&self) -> &str {
        self.server.names.admin.as_str().strip_suffix("_admin").unwrap()
    }
}

/// Creates the role that sets the server up, and returns the options to connect as it.
async fn create_dba(superuser: &PgConnectOptions, names: &ServerNames, rights: &str) -> Outcome<PgConnectOptions> {
    let name = names.admin.as_str().replace("_admin", "_dba");
    let mut session = superuser.connect().await?;
    sql(&mut session, &format!("CREATE ROLE \"{name}\" LOGIN {rights} PASSWORD '{DBA}'")).await?;
    Ok(superuser.clone().username(&name).password(DBA))
}

/// The password of the role that sets the server up.
const DBA: &str = "dba";

/// Runs SQL of a test.
#[expect(clippy::disallowed_methods, reason = "the SQL of a test")]
pub(crate) async fn sql(session: &mut PgConnection, text: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(session).await.map(drop)
}

/// Queries one value.
#[expect(clippy::disallowed_methods, reason = "the SQL of a test")]
pub(crate) async fn ask<T>(session: &mut PgConnection, text: &str) -> Result<T, sqlx::Error>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    sqlx::query_scalar(AssertSqlSafe(text.to_owned())).fetch_one(session).await
}

/// Returns the SQLSTATE of an error, `00000` for success, or the message of an error without a SQLSTATE.
pub(crate) fn code<T>(done: Result<T, sqlx::Error>) -> String {
    match done {
        Ok(_) => String::from("00000"),
        Err(e) => crate::sqlstate::code(&e).map_or_else(|| e.to_string(), |c| c.into_owned()),
    }
}
