//! The steps on the server: blocks of statements that find what is there and make what is missing.
use super::context::{ProvisionContext, opened};
use crate::cluster::pg::ddl::{Login, acts_as};
use crate::cluster::{Fresh, TenantLocation, set_defaults};
use crate::error::StepError;
use crate::saga::{Execution, SagaStep};
use crate::store::journal::LOGINS;
use async_trait::async_trait;
use futures_util::future::try_join;
use serde_json::{Value, json};

/// In the order of their run. One intent covers them all: they are idempotent, and what is theirs is known by name.
#[derive(Clone, Copy)]
pub(super) enum Cluster {
    /// Nothing of these names may be there yet. Its record precedes the first statement that makes something, so what
    /// is found later under these names is ours.
    Survey,
    /// The two NOLOGIN roles.
    Roles,
    /// The database, closed to everybody.
    Database,
    /// Who may connect; then it opens.
    Access,
    /// Schema `public` goes to the owner.
    Schema,
    /// The login that runs migrations.
    Migrator,
    /// What the application may do with whatever the owner makes.
    Defaults,
    /// The application's login.
    Login,
    /// Whether that login works, and as whom.
    Probe,
}

impl Cluster {
    pub(super) const BEFORE_MIGRATIONS: [Self; 9] = [
        Self::Survey,
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
impl SagaStep<ProvisionContext> for Cluster {
    fn name(&self) -> &'static str {
        match self {
            Self::Survey => "cluster.survey",
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
            Self::Survey => context.sessions.locked_session(run).await?.precheck(&names, &login).await?,
            Self::Roles => context.sessions.locked_session(run).await?.ensure_roles(&names).await?,
            Self::Database => database(run, context).await?,
            Self::Access => {
                let temp = context.config.temp_tables;
                context.sessions.locked_session(run).await?.ensure_access(&names, temp).await?;
            }
            Self::Schema => schema(run, context).await?,
            Self::Migrator => {
                drop(context.sessions.migrator_door(run).await?);
                return Ok(json!({ LOGINS: [&names.migrator] }));
            }
            Self::Defaults => {
                let session = context.sessions.migrator(run).await?;
                set_defaults(session, &names.roles).await?;
            }
            // This worker has made it already, beside the schema.
            Self::Login if context.has_login => {}
            Self::Login => {
                let (access, limit) = (context.config.access, context.config.connection_limit);
                let (sessions, verifier) = context.verifier().await?;
                sessions.locked_session(run).await?.ensure_sealed(&names, &login, access, limit, verifier).await?;
            }
            Self::Probe => {
                let access = context.config.access;
                context.app_door().await?.probe(run, &names.roles, access).await?;
            }
        }
        Ok(Value::Null)
    }

    /// All of them are removed in one go, in the order that a drop needs; the other steps have nothing of their own.
    async fn undo(&self, run: &Execution, context: &mut ProvisionContext) -> Result<(), StepError> {
        if !matches!(self, Self::Roles) || context.sessions.try_location().await?.is_none() {
            return Ok(());
        }
        let (names, login) = (context.sessions.location().await?.names.clone(), context.login().await?);
        context.sessions.forget_migrator().await;
        context.sessions.locked_session(run).await?.remove_made(&names, &[login]).await
    }
}

/// The server copies files meanwhile: time for the verifiers of both logins, each of which takes milliseconds.
async fn database(run: &Execution, context: &mut ProvisionContext) -> Result<(), StepError> {
    let (names, stores, id) =
        (context.sessions.location().await?.names.clone(), context.stores.clone(), context.credential().await?);
    let passwords = async { try_join(async { Ok(Fresh::new().made().await) }, opened(&stores, &id)).await };
    let made = context.sessions.locked_session(run).await?.ensure_database(&names);
    let ((), (migrator, app)) = try_join(made, passwords).await?;
    context.sessions.make_ready(migrator);
    context.kept = Some(app);
    Ok(())
}

async fn schema(run: &Execution, context: &mut ProvisionContext) -> Result<(), StepError> {
    let (names, name) = (context.sessions.location().await?.names.clone(), context.login().await?);
    let (acts_as, limit) = (acts_as(&names.roles, context.config.access), context.config.connection_limit);
    let (sessions, verifier) = context.verifier().await?;
    let login = Login { name: &name, acts_as, limit, verifier };
    sessions.locked_session(run).await?.ensure_schema_and_login(&names, &login).await?;
    context.has_login = true;
    Ok(())
}
