//! The steps on the server: blocks of statements that find what is there and make what is missing.
use super::world::{World, opened};
use crate::cluster::pg::ddl::{Login, acts_as};
use crate::cluster::{Fresh, Place, set_defaults};
use crate::error::StepError;
use crate::saga::{Action, Run};
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
            Self::Database => database(run, world).await?,
            Self::Access => {
                let temp = world.recipe.temp_tables;
                world.site.hold(run).await?.ensure_access(&names, temp).await?;
            }
            Self::Schema => schema(run, world).await?,
            Self::Migrator => {
                drop(world.site.migrator_door(run).await?);
                return Ok(json!({ LOGINS: [&names.migrator] }));
            }
            Self::Defaults => {
                let session = world.site.migrator(run).await?;
                set_defaults(session, &names.roles).await?;
            }
            // This worker has made it already, beside the schema.
            Self::Login if world.has_login => {}
            Self::Login => {
                let (access, limit) = (world.recipe.access, world.recipe.connection_limit);
                let (site, verifier) = world.verifier().await?;
                site.hold(run).await?.ensure_sealed(&names, &login, access, limit, verifier).await?;
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
        world.site.hold(run).await?.remove_made(&names, &[login]).await
    }
}

/// The server copies files meanwhile: time for the verifiers of both logins, each of which takes milliseconds.
async fn database(run: &Run, world: &mut World) -> Result<(), StepError> {
    let (names, shop, id) = (world.site.place().await?.names.clone(), world.shop.clone(), world.credential().await?);
    let passwords = async { try_join(async { Ok(Fresh::new().made().await) }, opened(&shop, &id)).await };
    let made = world.site.hold(run).await?.ensure_database(&names);
    let ((), (migrator, app)) = try_join(made, passwords).await?;
    world.site.make_ready(migrator);
    world.kept = Some(app);
    Ok(())
}

async fn schema(run: &Run, world: &mut World) -> Result<(), StepError> {
    let (names, name) = (world.site.place().await?.names.clone(), world.login().await?);
    let (acts_as, limit) = (acts_as(&names.roles, world.recipe.access), world.recipe.connection_limit);
    let (site, verifier) = world.verifier().await?;
    let login = Login { name: &name, acts_as, limit, verifier };
    site.hold(run).await?.ensure_schema_and_login(&names, &login).await?;
    world.has_login = true;
    Ok(())
}
