//! Tests of [`LockedSession`] on a real server: the steps of provisioning, rotation and removal in the order of the
//! sagas, without a journal.
use super::LockedSession;
use super::locked_session::{close_ledger, set_defaults};
use crate::cluster::pg::scram::derive_verifier;
use crate::cluster::pg::session::{Purpose, Target, close};
use crate::cluster::pg::tests::{Installation, Outcome, ask, code, sql};
use crate::directory::AppAccess;
use crate::names::RoleName;
use crate::names::TenantNames;
use secrecy::SecretString;
use sqlx::PgConnection;
use std::sync::Arc;
use tokio::sync::Semaphore;

mod foreign;
mod names;
mod obstacles;
mod repeat;
mod rights;
mod rules;

/// One tenant's objects on the server of an installation.
struct Tenant<'a> {
    it: &'a Installation,
    names: TenantNames,
    login: RoleName,
    access: AppAccess,
    temp_tables: bool,
    password: SecretString,
    migrator_password: SecretString,
}

/// The steps of a provisioning that change the server, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Roles,
    Database,
    Access,
    Schema,
    Migrator,
    Defaults,
    Login,
    Content,
    Ledger,
    Retire,
}

impl Step {
    const ALL: [Self; 10] = [
        Self::Roles,
        Self::Database,
        Self::Access,
        Self::Schema,
        Self::Migrator,
        Self::Defaults,
        Self::Login,
        Self::Content,
        Self::Ledger,
        Self::Retire,
    ];
}

const CONTENT: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations (version bigint PRIMARY KEY); \
    CREATE TABLE IF NOT EXISTS notes (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text NOT NULL)";

impl<'a> Tenant<'a> {
    fn new(it: &'a Installation, name: &str, access: AppAccess) -> Outcome<Self> {
        let names = TenantNames::of(&it.database(name))?;
        Ok(Self {
            it,
            login: names.login(crate::directory::Generation(1))?,
            names,
            access,
            temp_tables: false,
            password: SecretString::from("p@ss/w?rd:1#%"),
            migrator_password: SecretString::from("m'i\\g \"½\""),
        })
    }

    /// Provisions a tenant, with a table `notes`.
    async fn provisioned(it: &'a Installation, name: &str, access: AppAccess) -> Outcome<Self> {
        let tenant = Self::new(it, name, access)?;
        tenant.run(&mut tenant.locked_session().await?, &Step::ALL).await?;
        Ok(tenant)
    }

    async fn locked_session(&self) -> Outcome<LockedSession> {
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await?;
        let (server, password, ownership) = (self.it.server.clone(), self.it.blue.clone(), self.it.ownership());
        Ok(LockedSession::open(server, password, ownership, "tenantry/test".into(), permit).await?)
    }

    async fn run(&self, locked: &mut LockedSession, steps: &[Step]) -> Outcome {
        for step in steps {
            self.step(locked, *step).await.map_err(|e| format!("{step:?}: {e:?}"))?;
        }
        Ok(())
    }

    async fn step(&self, locked: &mut LockedSession, step: Step) -> Outcome {
        let names = &self.names;
        match step {
            Step::Roles => locked.ensure_roles(names).await?,
            Step::Database => locked.ensure_database(names).await?,
            Step::Access => locked.ensure_access(names, self.temp_tables).await?,
            Step::Schema => locked.ensure_schema(names).await?,
            Step::Migrator => locked.ensure_migrator(names, &derive_verifier(&self.migrator_password).await).await?,
            Step::Defaults => set_defaults(&mut self.migrator().await?, &names.roles).await?,
            Step::Login => {
                let verifier = derive_verifier(&self.password).await;
                locked.ensure_login(names, &self.login, self.access, 5, &verifier).await?
            }
            Step::Content => {
                let mut migrator = self.migrator().await?;
                sql(&mut migrator, CONTENT).await?;
                close(migrator).await;
            }
            Step::Ledger => close_ledger(&mut self.migrator().await?, "_sqlx_migrations", &names.roles.app).await?,
            Step::Retire => locked.remove_login(names, &names.migrator, &names.roles.owner).await?,
        }
        Ok(())
    }

    /// Creates a login of another generation.
    async fn create_login(&self, locked: &mut LockedSession, generation: i64) -> Outcome<RoleName> {
        let login = self.names.login(crate::directory::Generation(generation))?;
        let verifier = derive_verifier(&self.password).await;
        locked.ensure_login(&self.names, &login, self.access, 5, &verifier).await?;
        Ok(login)
    }

    async fn migrator(&self) -> Outcome<PgConnection> {
        let (server, database, role) = (&self.it.server, &self.names.database, &self.names.migrator);
        let (password, purpose) = (&self.migrator_password, Purpose::Content);
        Ok(Target { server, database, role, password, application_name: "tenantry/test", purpose }.open().await?)
    }
    /// Opens a session of the application.
    async fn app(&self) -> Outcome<PgConnection> {
        self.app_as(&self.login).await
    }
    async fn app_as(&self, login: &RoleName) -> Outcome<PgConnection> {
        Ok(self.it.login(login, &self.password, &self.names.database).await?)
    }

    /// Lists what is left of the tenant on the server: roles, the database, and orphaned memberships, settings and
    /// comments.
    async fn left(&self) -> Outcome<Vec<String>> {
        const LEFT: &str = "SELECT 'role ' || rolname FROM pg_roles WHERE starts_with(rolname, $1)
            UNION ALL SELECT 'database ' || datname FROM pg_database WHERE starts_with(datname, $1)
            UNION ALL SELECT 'membership' FROM pg_auth_members WHERE NOT EXISTS (SELECT FROM pg_roles WHERE oid = member)
                OR NOT EXISTS (SELECT FROM pg_roles WHERE oid = roleid)
            UNION ALL SELECT 'setting' FROM pg_db_role_setting WHERE setrole <> 0 AND NOT EXISTS
                (SELECT FROM pg_roles WHERE oid = setrole)
            UNION ALL SELECT 'comment ' || description FROM pg_shdescription WHERE classoid = 'pg_authid'::regclass
                AND NOT EXISTS (SELECT FROM pg_roles WHERE oid = objoid)
            ORDER BY 1";
        let mut superuser = self.it.superuser("postgres").await?;
        Ok(sqlx::query_scalar(LEFT).bind(self.names.database.as_str()).fetch_all(&mut superuser).await?)
    }

    /// Lists the tenant's roles as which the admin role can act. From 16 on the creator of a role is a member of it
    /// without SET and INHERIT; such memberships are left out.
    async fn memberships(&self) -> Outcome<Vec<String>> {
        const MEMBERSHIPS: &str = "SELECT r.rolname::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid
            WHERE m.member = (SELECT oid FROM pg_roles WHERE rolname = $2) AND starts_with(r.rolname, $1)
              AND (coalesce((to_jsonb(m) ->> 'set_option')::bool, true)
                OR coalesce((to_jsonb(m) ->> 'inherit_option')::bool, true))";
        let mut superuser = self.it.superuser("postgres").await?;
        let admin = self.it.server.names.admin.as_str();
        let found = sqlx::query_scalar(MEMBERSHIPS).bind(self.names.database.as_str()).bind(admin);
        Ok(found.fetch_all(&mut superuser).await?)
    }
}

/// Runs SQL and returns the SQLSTATE of its error, `00000` for success.
async fn sqlstate_of(session: &mut PgConnection, text: &str) -> String {
    code(sql(session, text).await)
}
