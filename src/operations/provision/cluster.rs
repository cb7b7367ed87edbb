//! The steps of a provisioning that create the tenant's roles, database and logins on the PostgreSQL server.
//!
//! The saga runs them in the order of [`ClusterStep::BEFORE_MIGRATIONS`]. Each looks for what exists and creates what
//! is missing, so it can be repeated. One undo removes everything that they have created.
use super::context::{ProvisionContext, open_password};
use crate::cluster::pg::ddl::{Login, acts_as};
use crate::cluster::{Fresh, TenantLocation, set_defaults};
use crate::error::StepError;
use crate::saga::{Execution, SagaStep};
use crate::store::journal::LOGINS;
use async_trait::async_trait;
use futures_util::future::try_join;
use serde_json::{Value, json};

/// The steps on the server, in the order in which they run. From [`Self::Roles`] on one intent covers them all, because
/// they are idempotent and an undo finds what they have created by its name.
#[derive(Clone, Copy)]
pub(super) enum ClusterStep {
    /// Fails if a role or a database with one of the tenant's names exists. The journal records this step before the
    /// first statement that creates something, so whatever has these names later was created by this operation.
    Precheck,
    /// Creates the two NOLOGIN group roles.
    Roles,
    /// Creates the database, to which no role may connect yet.
    Database,
    /// Grants CONNECT to the tenant's roles and opens the database.
    Access,
    /// Makes the tenant's owner role the owner of schema `public`.
    Schema,
    /// Creates the migrator login, which runs the migrations.
    Migrator,
    /// Sets the default privileges that give the application its rights on objects that the owner creates later.
    Defaults,
    /// Creates the application's login.
    Login,
    /// Logs in as the application's login and checks that it acts as the expected role.
    Probe,
}

impl ClusterStep {
    pub(super) const BEFORE_MIGRATIONS: [Self; 9] = [
        Self::Precheck,
        Self::Roles,
        Self::Database,
        Self::Access,
        Self::Schema,
        Self::Migrator,
        Self::Defaults,
        Self::Login,
        Self::Probe,
    ];
}

#[async_trait]
impl SagaStep<ProvisionContext> for ClusterStep {
    fn name(&self) -> &'static str {
        match self {
            Self::Precheck => "cluster.survey",
            Self::Roles => "roles.create",
            Self::Database => "database.create",
            Self::Access => "database.open",
            Self::Schema => "schema.own",
            Self::Migrator => "migrator.create",
            Self::Defaults => "defaults.set",
            Self::Login => "login.create",
            Self::Probe => "login.probe",
        }
    }

    fn shares_intent_with_previous(&self) -> bool {
        !matches!(self, Self::Roles)
    }

    async fn run(&self, run: &Execution, context: &mut ProvisionContext) -> Result<Value, StepError> {
        let (TenantLocation { names, .. }, login) =
            (context.sessions.location().await?.clone(), context.login().await?);
        match self {
            Self::Precheck => context.sessions.locked_session(run).await?.precheck(&names, &login).await?,
            Self::Roles => context.sessions.locked_session(run).await?.ensure_roles(&names).await?,
            Self::Database => create_database(run, context).await?,
            Self::Access => {
                let temp = context.config.temp_tables;
                context.sessions.locked_session(run).await?.ensure_access(&names, temp).await?;
            }
            Self::Schema => own_schema_and_create_login(run, context).await?,
            Self::Migrator => {
                drop(context.sessions.migrator_target(run).await?);
                return Ok(json!({ LOGINS: [&names.migrator] }));
            }
            Self::Defaults => {
                let session = context.sessions.migrator(run).await?;
                set_defaults(session, &names.roles).await?;
            }
            // This worker has already created it, concurrently with the schema.
            Self::Login if context.has_login => {}
            Self::Login => {
                let (access, limit) = (context.config.access, context.config.connection_limit);
                let (sessions, verifier) = context.verifier().await?;
                sessions
                    .locked_session(run)
                    .await?
                    .ensure_login_with_verifier(&names, &login, access, limit, verifier)
                    .await?;
            }
            Self::Probe => {
                let access = context.config.access;
                context.app_login_target().await?.probe(run, &names.roles, access).await?;
            }
        }
        Ok(Value::Null)
    }

    /// The undo of [`Self::Roles`] removes everything at once, in the order that dropping requires. The undo of the
    /// other steps does nothing.
    async fn undo(&self, run: &Execution, context: &mut ProvisionContext) -> Result<(), StepError> {
        if !matches!(self, Self::Roles) || context.sessions.try_location().await?.is_none() {
            return Ok(());
        }
        let (names, login) = (context.sessions.location().await?.names.clone(), context.login().await?);
        context.sessions.forget_migrator().await;
        context.sessions.locked_session(run).await?.remove_created(&names, &[login]).await
    }
}

/// Creates the database. While PostgreSQL copies the template's files, this process computes the SCRAM verifiers of
/// both logins, each of which takes milliseconds.
async fn create_database(run: &Execution, context: &mut ProvisionContext) -> Result<(), StepError> {
    let (names, stores, id) =
        (context.sessions.location().await?.names.clone(), context.stores.clone(), context.credential().await?);
    let passwords = async { try_join(async { Ok(Fresh::new().made().await) }, open_password(&stores, &id)).await };
    let created = context.sessions.locked_session(run).await?.ensure_database(&names);
    let ((), (migrator, app)) = try_join(created, passwords).await?;
    context.sessions.keep_migrator_password(migrator);
    context.app_password = Some(app);
    Ok(())
}

/// Gives schema `public` to its owner and, concurrently, creates the application's login. The session in the new
/// database takes long to open, and neither statement depends on the other.
async fn own_schema_and_create_login(run: &Execution, context: &mut ProvisionContext) -> Result<(), StepError> {
    let (names, name) = (context.sessions.location().await?.names.clone(), context.login().await?);
    let (acts_as, limit) = (acts_as(&names.roles, context.config.access), context.config.connection_limit);
    let (sessions, verifier) = context.verifier().await?;
    let login = Login { name: &name, acts_as, limit, verifier };
    sessions.locked_session(run).await?.ensure_schema_and_login(&names, &login).await?;
    context.has_login = true;
    Ok(())
}
