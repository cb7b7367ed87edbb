use super::world::World;
use crate::database::{DatabaseUser, Generation, TenantDatabase, UserStatus};
use crate::error::{StepError, chain};
use crate::ident::RoleName;
use crate::pg::scram;
use crate::saga::{Action, Run};
use crate::secret::CredentialId;
use crate::worker::Place;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// The stored names of the steps whose answers count later.
pub(super) const SEAL: &str = "secrets.seal";
pub(crate) const FLIP: &str = "entry.flip";
pub(super) const RETIRE: &str = "login.retire";

/// When a login that could not be dropped is tried again.
const SOON: Duration = Duration::from_secs(1);

/// From which login to which.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Sealed {
    pub(super) login: RoleName,
    pub(super) generation: Generation,
    from: Generation,
    old: RoleName,
}

/// Why the old login is still there, if it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Retired {
    pub(super) left: Option<String>,
}

/// In the order of their run.
#[derive(Clone, Copy)]
pub(crate) enum Rotate {
    /// The new login's name and its password, before a role has them.
    Seal,
    /// The new login.
    Create,
    /// Whether it works, and as whom.
    Probe,
    /// The directory names the new login: the point of no return.
    Flip,
    /// The old login drains and goes. What keeps it does not fail the rotation.
    Retire,
}

impl Rotate {
    pub(super) const ALL: [Self; 5] = [Self::Seal, Self::Create, Self::Probe, Self::Flip, Self::Retire];
}

#[async_trait]
impl Action<World> for Rotate {
    fn name(&self) -> &'static str {
        match self {
            Self::Seal => SEAL,
            Self::Create => "login.create",
            Self::Probe => "login.probe",
            Self::Flip => FLIP,
            Self::Retire => RETIRE,
        }
    }
    /// The flip has an intent of its own: what it rests on is known to be stored then. So has the end of the old login: a
    /// landlord that crashes must not forget the flip when the old login is gone.
    fn joins_previous(&self) -> bool {
        !matches!(self, Self::Flip | Self::Retire)
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        match self {
            Self::Seal => seal(run, world).await,
            Self::Create => world.ensure_login(run, &World::sealed(run)?).await.map(|()| Value::Null),
            Self::Probe => probe(run, world).await.map(|()| Value::Null),
            Self::Flip => flip(run, world).await,
            Self::Retire => retire(run, world).await,
        }
    }
    async fn undo(&self, run: &Run, world: &mut World) -> Result<(), StepError> {
        match self {
            Self::Seal => forget(run, world).await,
            Self::Create => remove(run, world).await,
            _ => Ok(()),
        }
    }
}

async fn seal(run: &Run, world: &mut World) -> Result<Value, StepError> {
    world.only_active().await?;
    let entry = world.entry().await?;
    let user = world.next(&entry).await?;
    let sealed = Sealed {
        login: user.role.clone(),
        generation: user.generation,
        from: entry.generation,
        old: entry.login.clone(),
    };
    let (id, shop) = (world.credential(&sealed).await?, world.shop.clone());
    let keep = async {
        shop.registry.put_user(None, &user, run.writer()).await?;
        let password = shop.vault.put(&id, &scram::password(), run.writer()).await?;
        Ok::<_, StepError>((scram::verifier(&password).await, password))
    };
    // The session of the next step is opened meanwhile: it does nothing yet.
    let (kept, held) = futures_util::future::join(keep, world.site.hold(run)).await;
    held?;
    world.kept = Some(kept?);
    serde_json::to_value(sealed).map_err(StepError::fail)
}

/// A worker that comes later finds the login as a fence has left it.
async fn reopen(run: &Run, world: &mut World, sealed: &Sealed) -> Result<(), StepError> {
    if run.is_first() { Ok(()) } else { world.ensure_login(run, sealed).await }
}

async fn probe(run: &Run, world: &mut World) -> Result<(), StepError> {
    let sealed = World::sealed(run)?;
    reopen(run, world, &sealed).await?;
    let (password, access) = (world.password(&sealed).await?, world.login.access);
    let Place { server, names } = world.site.place().await?;
    server.door(&names.database, &sealed.login, password).probe(run, &names.roles, access).await
}

async fn flip(run: &Run, world: &mut World) -> Result<Value, StepError> {
    let sealed = World::sealed(run)?;
    reopen(run, world, &sealed).await?;
    let credential = world.credential(&sealed).await?;
    let entry = world.entry().await?;
    if entry.generation != sealed.generation {
        let Sealed { login, generation, .. } = sealed.clone();
        let next = TenantDatabase { login, generation, credential, ..entry };
        world.shop.registry.put_database(Some(sealed.from), &next, Some(run.writer())).await?;
    }
    serde_json::to_value(sealed.generation).map_err(StepError::fail)
}

async fn retire(run: &Run, world: &mut World) -> Result<Value, StepError> {
    let sealed = World::sealed(run)?;
    let users = world.shop.registry.users(world.tenant).await?;
    let old = users.into_iter().find(|u| u.role == sealed.old && u.status == UserStatus::Retiring);
    let mut left = None;
    if let Some(old) = old {
        left = drop_or_say(run, world, &old).await?;
        let again = left.as_deref().map(|reason| (reason, SOON));
        world.shop.registry.settle_retirement(&old, again, Some(run.writer())).await?;
    }
    // Nobody needs its secret any more: whoever is refused asks for the new one.
    let database = world.site.place().await?.names.database.clone();
    let secret = CredentialId::login(world.tenant, &database, &sealed.old, sealed.from.0);
    world.shop.vault.forget(&secret, run.writer()).await?;
    serde_json::to_value(Retired { left }).map_err(StepError::fail)
}

/// Why it is still there, if it is. Nobody uses it: whatever stands in the way is for the queue.
async fn drop_or_say(run: &Run, world: &mut World, old: &DatabaseUser) -> Result<Option<String>, StepError> {
    let (heir, grace) = (world.heir().await?, World::grace(run)?);
    let names = world.site.place().await?.names.clone();
    let standbys = world.shop.standbys(world.tenant, &names.database).await?;
    let retired = match world.site.hold(run).await {
        Ok(hold) => hold.retire_login(&names, &old.role, &heir, grace, &standbys).await,
        Err(error) => Err(error),
    };
    match retired {
        Ok(()) => Ok(None),
        Err(error) if error.is_fenced() || error.is_forgotten() => Err(error),
        Err(error) => Ok(Some(said(&error))),
    }
}

/// The error with its causes, without "try again".
pub(super) fn said(error: &StepError) -> String {
    std::error::Error::source(error).map(chain).unwrap_or_default()
}

/// An unused login is nothing that an undo would have to wait for: if it cannot go now, it retires.
async fn remove(run: &Run, world: &mut World) -> Result<(), StepError> {
    for user in world.pending().await? {
        if let Some(reason) = drop_or_say(run, world, &user).await? {
            let retiring = DatabaseUser { reason: Some(reason), ..user.with_status(UserStatus::Retiring) };
            world.shop.registry.put_user(Some(UserStatus::Pending), &retiring, run.writer()).await?;
        }
    }
    Ok(())
}

async fn forget(run: &Run, world: &mut World) -> Result<(), StepError> {
    for user in world.pending().await? {
        let secret = CredentialId::login(world.tenant, &user.database, &user.role, user.generation.0);
        world.shop.vault.forget(&secret, run.writer()).await?;
        let dropped = user.with_status(UserStatus::Dropped);
        world.shop.registry.put_user(Some(UserStatus::Pending), &dropped, run.writer()).await?;
    }
    Ok(())
}
