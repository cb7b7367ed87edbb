//! The steps of a provisioning that create the tenant's roles, database and logins on the PostgreSQL server.
//!
//! The saga runs them in the order of [`ClusterStep::BEFORE_MIGRATIONS`]. Each looks for what exists and creates what
//! is missing, so it can be repeated. One undo removes everything that they have created.
use crate::cluster::{TenantLocation, set_defaults};
use crate::error::StepError;
use crate::operations::provision::context::ProvisionContext;
use crate::saga::{Execution, SagaStep};
use crate::store::journal::LOGINS;
use async_trait::async_trait;
use serde_json::{Value, json};

/// The steps on the server, in the order in which they run. From [`Self::Roles`] on one intent covers them all, because
/// they are idempotent and an undo finds what they have created by its name.
#[derive(Clone, Copy)]
pub(in crate::operations::provision) enum ClusterStep {
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
    pub(in crate::operations::provision) const BEFORE_MIGRATIONS: [Self; 9] = [
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
            Self::Database => context.sessions.locked_session(run).await?.ensure_database(&names).await?,
            Self::Access => {
                let temp = context.config.temp_tables;
                context.sessions.locked_session(run).await?.ensure_access(&names, temp).await?;
            }
            Self::Schema => context.sessions.locked_session(run).await?.ensure_schema(&names).await?,
            Self::Migrator => {
                drop(context.sessions.migrator_target(run).await?);
                return Ok(json!({ LOGINS: [&names.migrator] }));
            }
            Self::Defaults => {
                let session = context.sessions.migrator(run).await?;
                set_defaults(session, &names.roles).await?;
            }
            Self::Login => context.ensure_login(run).await?,
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
