//! The steps on the server: blocks of statements that find what is there and make what is missing.
use super::world::World;
use crate::error::StepError;
use crate::saga::{Action, Run};
use crate::worker::{Place, set_defaults};
use async_trait::async_trait;
use serde_json::Value;

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
impl Action<World> for Cluster {
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

    fn joins_previous(&self) -> bool {
        !matches!(self, Self::Roles)
    }

    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        let (Place { names, .. }, login) = (world.site.place().await?.clone(), world.login().await?);
        match self {
            Self::Survey => world.site.hold(run).await?.survey(&names, &login).await?,
            Self::Roles => world.site.hold(run).await?.ensure_roles(&names).await?,
            Self::Database => world.site.hold(run).await?.ensure_database(&names).await?,
            Self::Access => {
                let temp = world.recipe.temp_tables;
                world.site.hold(run).await?.ensure_access(&names, temp).await?;
            }
            Self::Schema => world.site.hold(run).await?.ensure_schema(&names).await?,
            Self::Migrator => drop(world.site.migrator_door(run).await?),
            Self::Defaults => {
                let session = world.site.migrator(run).await?;
                set_defaults(session, &names.roles).await?;
            }
            Self::Login => {
                let (password, recipe) = (world.password().await?, world.recipe.clone());
                let hold = world.site.hold(run).await?;
                hold.ensure_login(&names, &login, recipe.access, recipe.connection_limit, &password).await?;
            }
            Self::Probe => {
                let access = world.recipe.access;
                world.app_door().await?.probe(run, &names.roles, access).await?;
            }
        }
        Ok(Value::Null)
    }

    /// All of them are removed in one go, in the order that a drop needs; the other steps have nothing of their own.
    async fn undo(&self, run: &Run, world: &mut World) -> Result<(), StepError> {
        if !matches!(self, Self::Roles) || world.site.try_place().await?.is_none() {
            return Ok(());
        }
        let (names, login) = (world.site.place().await?.names.clone(), world.login().await?);
        world.site.forget_migrator().await;
        world.site.hold(run).await?.remove(&names, &[login]).await
    }
}
