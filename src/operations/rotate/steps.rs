use super::sealed::{SEAL, Sealed, next};
use super::world::World;
use crate::cluster::{Fresh, Kept, Place, Retired as Shut, Workshop, ahead, verified};
use crate::directory::{DatabaseUser, TenantDatabase, UserStatus};
use crate::error::{StepError, chain};
use crate::saga::{Action, Run};
use crate::secret::CredentialId;
use crate::tenant::TenantId;
use async_trait::async_trait;
use futures_util::future::{join, try_join};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

pub(crate) const FLIP: &str = "entry.flip";
pub(super) const RETIRE: &str = "login.retire";

/// When a login that could not be dropped is tried again.
const SOON: Duration = Duration::from_secs(1);

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
    /// The flip has an intent of its own: from there on there is no way back. So has the end of the old login: a landlord
    /// that crashes must not forget the flip when the old login is gone.
    fn joins_previous(&self) -> bool {
        !matches!(self, Self::Flip | Self::Retire)
    }
    fn in_landlord(&self) -> bool {
        matches!(self, Self::Flip)
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
    let (shop, tenant, fresh) = (world.shop.clone(), world.tenant, world.site.fresh());
    let place = world.site.try_place().await?.cloned();
    // The session of the next step is opened meanwhile: it does nothing yet.
    let hold = ahead(world.site.hold(run));
    let ((sealed, kept, entries), ()) = try_join(keep(run, &shop, tenant, place, fresh), hold).await?;
    (world.kept, world.entries) = (Some(kept), Some(entries));
    serde_json::to_value(sealed).map_err(StepError::fail)
}

async fn keep(
    run: &Run, shop: &Workshop, tenant: TenantId, place: Option<Place>, fresh: Fresh,
) -> Result<(Sealed, Kept, Vec<TenantDatabase>), StepError> {
    let (entries, entry, user) = next(shop, tenant, place).await?;
    shop.registry.put_user(None, &user, run.writer()).await?;
    let (login, generation) = (user.role, user.generation);
    let id = CredentialId::login(tenant, &user.database, &login, generation.0);
    let kept = shop.vault.put(&id, &fresh.password, run.writer()).await?;
    let sealed = Sealed { login, generation, from: entry.generation, old: entry.login };
    // An earlier worker's, if there was one.
    let is_fresh = kept.expose_secret() == fresh.password.expose_secret();
    let kept = if is_fresh { fresh.made().await } else { verified(kept).await };
    Ok((sealed, kept, entries))
}

/// A worker that comes later finds the login as a fence has left it.
async fn reopen(run: &Run, world: &mut World, sealed: &Sealed) -> Result<(), StepError> {
    if run.is_first() { Ok(()) } else { world.ensure_login(run, sealed).await }
}

async fn probe(run: &Run, world: &mut World) -> Result<(), StepError> {
    let sealed = World::sealed(run)?;
    reopen(run, world, &sealed).await?;
    let (password, access) = (world.password(&sealed).await?, world.login.access);
    let Place { server, names } = world.site.place().await?.clone();
    let door = server.door(&names.database, &sealed.login, password);
    let probe = door.probe(run, &names.roles, access);
    let end = ahead(world.site.hold(run).await?.look_ahead(&names, &sealed.old));
    try_join(probe, end).await.map(drop)
}

async fn flip(run: &Run, world: &mut World) -> Result<Value, StepError> {
    let sealed = World::sealed(run)?;
    reopen(run, world, &sealed).await?;
    let credential = world.credential(&sealed).await?;
    let entry = world.entry().await?;
    if entry.generation != sealed.generation {
        let Sealed { login, generation, .. } = sealed.clone();
        let next = TenantDatabase { login, generation, credential, ..entry };
        world.shop.registry.replace_login(sealed.from, &next, run.writer()).await?;
    }
    serde_json::to_value(sealed.generation).map_err(StepError::fail)
}

async fn retire(run: &Run, world: &mut World) -> Result<Value, StepError> {
    let sealed = World::sealed(run)?;
    let Place { server, names } = world.site.place().await?;
    let (server, database) = (server.name.clone(), names.database.clone());
    let secret = CredentialId::login(world.tenant, &database, &sealed.old, sealed.from.0);
    let old = DatabaseUser::pending(world.tenant, server, database, sealed.old.clone(), sealed.from);
    let old = old.with_status(UserStatus::Retiring);
    let mut left = None;
    if still_retiring(run, world, &old).await? {
        left = drop_or_say(run, world, &old).await?;
    }
    let again = left.as_deref().map(|reason| (reason, SOON));
    // Nobody needs its secret any more: whoever is refused asks for the new one.
    let settled = world.shop.registry.settle_retirement(&old, again, Some(run.writer()));
    let (settled, forgotten) = join(settled, world.shop.vault.forget(&secret, run.writer())).await;
    settled?;
    forgotten?;
    serde_json::to_value(Retired { left }).map_err(StepError::fail)
}

/// Whoever has flipped knows it. Another worker may come when the login is gone, or in use again.
async fn still_retiring(run: &Run, world: &World, old: &DatabaseUser) -> Result<bool, StepError> {
    if run.is_first() {
        return Ok(true);
    }
    let users = world.shop.registry.users(world.tenant).await?;
    Ok(users.iter().any(|u| u.role == old.role && u.status == UserStatus::Retiring))
}

/// Why it is still there, if it is. Nobody uses it: whatever stands in the way is for the queue.
async fn drop_or_say(run: &Run, world: &mut World, old: &DatabaseUser) -> Result<Option<String>, StepError> {
    let (heir, grace) = (world.heir().await?, World::grace(run)?);
    let names = world.site.place().await?.names.clone();
    if !grace.is_zero() {
        // There is time to ask once more which standbys there are.
        world.entries = None;
    }
    let standbys = world.standbys().await?;
    let retired = match world.site.hold(run).await {
        Ok(hold) => hold.retire_login(&names, &old.role, &heir, grace, &standbys).await,
        Err(error) => Err(error),
    };
    match retired {
        Ok(Shut::Dropped) => Ok(None),
        Ok(Shut::Left(error)) => Ok(Some(said(&error))),
        Err(error) if error.is_fenced() || error.is_forgotten() => Err(error),
        // A login without a grace is known to others: the rotation has not ended while it can enter.
        Err(error) if grace.is_zero() && old.status == UserStatus::Retiring => {
            Err(StepError::retry(error.into_cause()))
        }
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
        if !world.site.hold(run).await?.is_made(&user.role).await? {
            continue;
        }
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
