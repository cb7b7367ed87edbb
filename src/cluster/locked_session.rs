//! One worker's session on a server, which has the advisory lock of its tenant and runs the cluster statements.
//!
//! Saga steps call the methods of [`LockedSession`]: each makes sure that something is present or absent on the server,
//! so it may be repeated. The session is opened, the epoch is checked, and the lock is taken before any statement
//! changes the server (see `open`). The session is never reopened: after an error the worker needs a new epoch and a
//! new session.
use crate::cluster::migrations::migration_lock_key;
use crate::cluster::pg::ownership::Ownership;
use crate::cluster::pg::session::{Purpose, Target};
use crate::cluster::pg::{catalog, ddl, ensure, lock, scram, session};
use crate::directory::AppAccess;
use crate::error::{ClusterError, StepError};
use crate::names::{DatabaseName, RoleName};
use crate::names::{GroupRoles, TenantNames};
use crate::server::DatabaseServer;
use crate::sqlstate;
use secrecy::SecretString;
use sqlx::PgConnection;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

mod clean;
mod limits;
mod open;
mod refuse;
mod remove;
mod repair;
mod standby;
mod temporary_login;
pub(super) use open::Preconnected;
pub(crate) use refuse::Closed;
pub(crate) use remove::RetiredLogin;
pub(crate) use standby::Standby;
pub(crate) use temporary_login::TemporaryRights;

/// Time that a session gets to finish if it was opened just before its login was refused.
const LAST_MOMENT: Duration = Duration::from_secs(2);
/// Time that a session may take to connect before it shows its login in `pg_stat_activity`.
const SETTLING: Duration = Duration::from_secs(2);

/// The session that has the tenant's advisory lock and runs the cluster statements of one worker. Dropping it closes
/// the session, which releases the lock and the worker permit. After an error the saga runner drops it and opens
/// another one under a new epoch.
pub(crate) struct LockedSession {
    session: PgConnection,
    server: DatabaseServer,
    password: SecretString,
    ownership: Ownership,
    /// The `application_name` of all its sessions.
    name: String,
    _permit: OwnedSemaphorePermit,
}

impl LockedSession {
    /// Verifies that no role and no database has one of these names yet. Objects found under them later were then
    /// created by this operation.
    ///
    /// # Errors
    /// `Foreign` names the object that exists.
    pub(crate) async fn precheck(&mut self, names: &TenantNames, login: &RoleName) -> Result<(), StepError> {
        let roles = [&names.roles.owner, &names.roles.app, &names.migrator, login];
        match catalog::find_name_conflict(&mut self.session, roles, &names.database).await? {
            Some((kind, name)) => Err(ClusterError::Foreign { kind, name }.into()),
            None => Ok(()),
        }
    }
    /// Makes sure that the tenant's two group roles exist (NOLOGIN).
    ///
    /// # Errors
    /// `Foreign` names a role that this installation did not create.
    pub(crate) async fn ensure_roles(&mut self, names: &TenantNames) -> Result<(), StepError> {
        const PHASE: &str = "creating roles";
        let (session, Ownership { marker, admin }) = (&mut self.session, &self.ownership);
        let all = [&names.roles.owner, &names.roles.app];
        let create = ddl::create_groups(&all, marker);
        if ensure::try_create(session, create, sqlstate::DUPLICATE_OBJECT, PHASE).await? {
            return Ok(());
        }
        let present = catalog::find_made_roles(session, &all, admin, marker).await?;
        let missing: Vec<&RoleName> = all.into_iter().filter(|r| !present.contains(r)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Ok(ddl::create_groups(&missing, marker).run(session, PHASE).await?)
    }
    /// Makes sure that the database exists. A new one accepts no connections yet.
    pub(crate) async fn ensure_database(&mut self, names: &TenantNames) -> Result<(), StepError> {
        Ok(ensure::create_database(&mut self.session, &names.database, &self.ownership).await?)
    }
    /// Grants CONNECT to the tenant's group roles, revokes it from PUBLIC, and then lets the database accept
    /// connections.
    pub(crate) async fn ensure_access(&mut self, names: &TenantNames, temp_tables: bool) -> Result<(), StepError> {
        let open = ddl::open_database(names, &self.ownership.marker, temp_tables);
        Ok(open.run(&mut self.session, "opening the database").await?)
    }
    /// Makes the tenant's owner role the owner of schema `public`, in a second session.
    pub(crate) async fn ensure_schema(&mut self, names: &TenantNames) -> Result<(), StepError> {
        let mut inside = self.open_session_in(&names.database).await?;
        let transfer = ddl::transfer_schema(&names.roles, &self.ownership.admin);
        transfer.run(&mut inside, "giving the schema to its owner").await?;
        session::close(inside).await;
        Ok(())
    }
    /// Makes sure that the migrator's login exists with this verifier and at most three sessions.
    pub(crate) async fn ensure_migrator(
        &mut self, names: &TenantNames, verifier: &scram::Verifier,
    ) -> Result<(), StepError> {
        let login = ddl::Login { name: &names.migrator, acts_as: &names.roles.owner, limit: 3, verifier };
        Ok(ensure::create_login(&mut self.session, &login, &self.ownership).await?)
    }
    /// Makes sure that the application's login exists with this verifier and connection limit, as a member of the group
    /// role that `access` selects.
    pub(crate) async fn ensure_login(
        &mut self, names: &TenantNames, login: &RoleName, access: AppAccess, limit: i32, verifier: &scram::Verifier,
    ) -> Result<(), StepError> {
        let acts_as = ddl::acts_as(&names.roles, access);
        let login = ddl::Login { name: login, acts_as, limit, verifier };
        Ok(ensure::create_login(&mut self.session, &login, &self.ownership).await?)
    }
    /// The error that names the session which has sqlx's lock of the migrations of this database.
    pub(crate) async fn describe_migration_lock(&mut self, database: &DatabaseName) -> Result<ClusterError, StepError> {
        let key = migration_lock_key(database.as_str());
        let by = lock::describe_holder_in(&mut self.session, database, key).await?;
        Ok(ClusterError::MigrationLocked { database: database.to_string(), by })
    }
    /// Opens a second session of the provisioner, in a tenant's database. Use it for catalog statements only: code of
    /// the tenant, such as a trigger, would run with the provisioner's rights.
    async fn open_session_in(&self, database: &DatabaseName) -> Result<PgConnection, StepError> {
        match open_provisioner_session(&self.server, database, &self.password, &self.name, Purpose::Cluster).await {
            // The first session logged in with this password, so the password has been rotated since. The next attempt
            // reads the new one.
            Err(ClusterError::Connect { source, .. }) if sqlstate::is_refused_login(&source) => {
                Err(StepError::retry(source))
            }
            opened => Ok(opened?),
        }
    }
}

async fn open_provisioner_session(
    server: &DatabaseServer, database: &DatabaseName, password: &SecretString, application_name: &str, purpose: Purpose,
) -> Result<PgConnection, ClusterError> {
    let role = &server.login;
    Target { server, database, role, password, application_name, purpose }.open().await
}

/// Sets, in the migrator's session, the rights that the application gets on objects that the owner creates later.
pub(crate) async fn set_defaults(session: &mut PgConnection, roles: &GroupRoles) -> Result<(), StepError> {
    Ok(ddl::set_default_privileges(&roles.app).run(session, "setting default privileges").await?)
}

/// Revokes, in the migrator's session, the application's right to write the table of applied migrations. It may read
/// it.
pub(crate) async fn close_ledger(session: &mut PgConnection, table: &str, app: &RoleName) -> Result<(), StepError> {
    Ok(ddl::close_ledger(table, app).run(session, "revoking write access to the migrations table").await?)
}
