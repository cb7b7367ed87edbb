use super::context::RotateContext;
use super::login_change::{LoginChange, SEAL, next};
use crate::cluster::{Fresh, Kept, OperationContext, RetiredLogin, TenantLocation, prefetch, verified};
use crate::directory::{DatabaseUser, TenantDatabase, UserStatus};
use crate::error::{StepError, chain};
use crate::saga::{Execution, SagaStep};
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
impl SagaStep<RotateContext> for Rotate {
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
    fn shares_intent_with_previous(&self) -> bool {
        !matches!(self, Self::Flip | Self::Retire)
    }
    fn landlord_only(&self) -> bool {
        matches!(self, Self::Flip)
    }
    async fn run(&self, run: &Execution, context: &mut RotateContext) -> Result<Value, StepError> {
        match self {
            Self::Seal => seal(run, context).await,
            Self::Create => context.ensure_login(run, &RotateContext::change(run)?).await.map(|()| Value::Null),
            Self::Probe => probe(run, context).await.map(|()| Value::Null),
            Self::Flip => flip(run, context).await,
            Self::Retire => retire(run, context).await,
        }
    }
    async fn undo(&self, run: &Execution, context: &mut RotateContext) -> Result<(), StepError> {
        match self {
            Self::Seal => forget(run, context).await,
            Self::Create => remove(run, context).await,
            _ => Ok(()),
        }
    }
}

async fn seal(run: &Execution, context: &mut RotateContext) -> Result<Value, StepError> {
    let (stores, tenant, fresh) = (context.stores.clone(), context.tenant, context.sessions.fresh());
    let place = context.sessions.try_location().await?.cloned();
    // The session of the next step is opened meanwhile: it does nothing yet.
    let locked = prefetch(context.sessions.locked_session(run));
    let ((change, kept, entries), ()) = try_join(keep(run, &stores, tenant, place, fresh), locked).await?;
    (context.kept, context.entries) = (Some(kept), Some(entries));
    serde_json::to_value(change).map_err(StepError::fail)
}

async fn keep(
    run: &Execution, stores: &OperationContext, tenant: TenantId, place: Option<TenantLocation>, fresh: Fresh,
) -> Result<(LoginChange, Kept, Vec<TenantDatabase>), StepError> {
    let (entries, entry, user) = next(stores, tenant, place).await?;
    stores.registry.put_user(None, &user, run.fencing_token()).await?;
    let (login, generation) = (user.role, user.generation);
    let id = CredentialId::login(tenant, &user.database, &login, generation.0);
    let kept = stores.vault.put(&id, &fresh.password, run.fencing_token()).await?;
    let change = LoginChange { login, generation, from: entry.generation, old: entry.login };
    // An earlier worker's, if there was one.
    let is_fresh = kept.expose_secret() == fresh.password.expose_secret();
    let kept = if is_fresh { fresh.made().await } else { verified(kept).await };
    Ok((change, kept, entries))
}

/// A worker that comes later finds the login as a fence has left it.
async fn reopen(run: &Execution, context: &mut RotateContext, change: &LoginChange) -> Result<(), StepError> {
    if run.is_first() { Ok(()) } else { context.ensure_login(run, change).await }
}

async fn probe(run: &Execution, context: &mut RotateContext) -> Result<(), StepError> {
    let change = RotateContext::change(run)?;
    reopen(run, context, &change).await?;
    let (password, access) = (context.password(&change).await?, context.login.access);
    let TenantLocation { server, names } = context.sessions.location().await?.clone();
    let login = server.login_target(&names.database, &change.login, password);
    let probe = login.probe(run, &names.roles, access);
    let end = prefetch(context.sessions.locked_session(run).await?.prefetch_catalog(&names, &change.old));
    try_join(probe, end).await.map(drop)
}

async fn flip(run: &Execution, context: &mut RotateContext) -> Result<Value, StepError> {
    let change = RotateContext::change(run)?;
    reopen(run, context, &change).await?;
    let credential = context.credential(&change).await?;
    let entry = context.entry().await?;
    if entry.generation != change.generation {
        let LoginChange { login, generation, .. } = change.clone();
        let next = TenantDatabase { login, generation, credential, ..entry };
        context.stores.registry.replace_login(change.from, &next, run.fencing_token()).await?;
    }
    serde_json::to_value(change.generation).map_err(StepError::fail)
}

async fn retire(run: &Execution, context: &mut RotateContext) -> Result<Value, StepError> {
    let change = RotateContext::change(run)?;
    let TenantLocation { server, names } = context.sessions.location().await?;
    let (server, database) = (server.name.clone(), names.database.clone());
    let secret = CredentialId::login(context.tenant, &database, &change.old, change.from.0);
    let old = DatabaseUser::pending(context.tenant, server, database, change.old.clone(), change.from);
    let old = old.with_status(UserStatus::Retiring);
    let mut left = None;
    if still_retiring(run, context, &old).await? {
        left = drop_or_say(run, context, &old).await?;
    }
    let again = left.as_deref().map(|reason| (reason, SOON));
    // Nobody needs its secret any more: whoever is refused asks for the new one.
    let settled = context.stores.registry.settle_retirement(&old, again, Some(run.fencing_token()));
    let (settled, forgotten) = join(settled, context.stores.vault.forget(&secret, run.fencing_token())).await;
    settled?;
    forgotten?;
    serde_json::to_value(Retired { left }).map_err(StepError::fail)
}

/// Whoever has flipped knows it. Another worker may come when the login is gone, or in use again.
async fn still_retiring(run: &Execution, context: &RotateContext, old: &DatabaseUser) -> Result<bool, StepError> {
    if run.is_first() {
        return Ok(true);
    }
    let users = context.stores.registry.users(context.tenant).await?;
    Ok(users.iter().any(|u| u.role == old.role && u.status == UserStatus::Retiring))
}

/// Why it is still there, if it is. Nobody uses it: whatever stands in the way is for the queue.
async fn drop_or_say(
    run: &Execution, context: &mut RotateContext, old: &DatabaseUser,
) -> Result<Option<String>, StepError> {
    let (new_owner, grace) = (context.new_owner().await?, RotateContext::grace(run)?);
    let names = context.sessions.location().await?.names.clone();
    if !grace.is_zero() {
        // There is time to ask once more which standbys there are.
        context.entries = None;
    }
    let standbys = context.standbys().await?;
    let retired = match context.sessions.locked_session(run).await {
        Ok(locked) => locked.retire_login(&names, &old.role, &new_owner, grace, &standbys).await,
        Err(error) => Err(error),
    };
    match retired {
        Ok(RetiredLogin::Dropped) => Ok(None),
        Ok(RetiredLogin::Left(error)) => Ok(Some(said(&error))),
        Err(error) if error.is_fenced() || error.is_lost_writes() => Err(error),
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
async fn remove(run: &Execution, context: &mut RotateContext) -> Result<(), StepError> {
    for user in context.pending().await? {
        if !context.sessions.locked_session(run).await?.is_made(&user.role).await? {
            continue;
        }
        if let Some(reason) = drop_or_say(run, context, &user).await? {
            let retiring = DatabaseUser { reason: Some(reason), ..user.with_status(UserStatus::Retiring) };
            context.stores.registry.put_user(Some(UserStatus::Pending), &retiring, run.fencing_token()).await?;
        }
    }
    Ok(())
}

async fn forget(run: &Execution, context: &mut RotateContext) -> Result<(), StepError> {
    for user in context.pending().await? {
        let secret = CredentialId::login(context.tenant, &user.database, &user.role, user.generation.0);
        context.stores.vault.forget(&secret, run.fencing_token()).await?;
        let dropped = user.with_status(UserStatus::Dropped);
        context.stores.registry.put_user(Some(UserStatus::Pending), &dropped, run.fencing_token()).await?;
    }
    Ok(())
}
