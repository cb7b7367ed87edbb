//! The steps of a rotation.
//!
//! The saga lists them in this order; a credentials link runs the same steps between its own. Each
//! step first looks for what an earlier worker has done. Everything before [`RotateStep::Flip`] can be undone; after it
//! the old login is dropped, now or by the retirement queue.
use super::Request;
use super::context::RotateContext;
use super::login_change::{LoginChange, SEAL, choose_login};
use crate::cluster::pg::scram;
use crate::cluster::{GeneratedPassword, OperationContext, RetiredLogin, TenantLocation};
use crate::directory::{DatabaseUser, TenantDatabase, UserStatus};
use crate::error::StepError;
use crate::saga::{Execution, SagaStep};
use crate::secret::CredentialId;
use crate::tenant::TenantId;
use async_trait::async_trait;
use futures_util::future::join;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

pub(crate) const FLIP: &str = "entry.flip";
pub(super) const RETIRE: &str = "login.retire";

/// Wait before the retirement queue first retries a drop that failed in the rotation itself.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long a rotation of a batch waits until the nodes have closed the sessions of the old login. A node that follows
/// the notifications closes its idle sessions within milliseconds.
const SHORT_WAIT: Duration = Duration::from_millis(300);

/// The stored output of step `login.retire`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RetireOutput {
    /// Why the old login could not be dropped; `None` if it was dropped.
    pub(super) left: Option<String>,
}

/// The steps of a rotation, in the order in which they run.
#[derive(Clone, Copy)]
pub(crate) enum RotateStep {
    /// Stores name and password of the new login, before the role exists.
    Seal,
    /// Creates the new login.
    Create,
    /// Logs in as the new login and checks that it acts as the expected role.
    Probe,
    /// Changes the directory entry to the new login. This is the pivot step.
    Flip,
    /// Lets the old login drain and drops it. A failed drop does not fail the rotation.
    Retire,
}

#[async_trait]
impl SagaStep<RotateContext> for RotateStep {
    fn name(&self) -> &'static str {
        match self {
            Self::Seal => SEAL,
            Self::Create => "login.create",
            Self::Probe => "login.probe",
            Self::Flip => FLIP,
            Self::Retire => RETIRE,
        }
    }
    /// The flip has an intent of its own, because it is the pivot step. So has the drop of the old login: otherwise a
    /// landlord that crashes could lose the flip after the old login was dropped, and the directory would name that
    /// login.
    fn shares_intent_with_previous(&self) -> bool {
        !matches!(self, Self::Flip | Self::Retire)
    }
    fn landlord_only(&self) -> bool {
        matches!(self, Self::Flip)
    }
    async fn run(&self, run: &Execution, context: &mut RotateContext) -> Result<Value, StepError> {
        match self {
            Self::Seal => seal(run, context).await,
            Self::Create => context.ensure_login(run, &RotateContext::login_change(run)?).await.map(|()| Value::Null),
            Self::Probe => probe(run, context).await.map(|()| Value::Null),
            Self::Flip => flip(run, context).await,
            Self::Retire => retire(run, context).await,
        }
    }
    async fn undo(&self, run: &Execution, context: &mut RotateContext) -> Result<(), StepError> {
        match self {
            Self::Seal => forget_pending_passwords(run, context).await,
            Self::Create => remove_pending_logins(run, context).await,
            _ => Ok(()),
        }
    }
}

/// Stores the new login and its password, and derives the verifier meanwhile. If an earlier worker has stored a
/// password, that one stays and gets a verifier of its own.
async fn seal(run: &Execution, context: &mut RotateContext) -> Result<Value, StepError> {
    let (stores, tenant, password) = (context.stores.clone(), context.tenant, scram::generate_password());
    let location = context.sessions.try_location().await?.cloned();
    let stored = store_new_login(run, &stores, tenant, location, &password);
    let (stored, verifier) = join(stored, scram::derive_verifier(&password)).await;
    let (change, stored, entries) = stored?;
    let is_new = stored.expose_secret() == password.expose_secret();
    let password =
        if is_new { GeneratedPassword { password, verifier } } else { GeneratedPassword::from_stored(stored).await };
    (context.new_password, context.entries) = (Some(password), Some(entries));
    serde_json::to_value(change).map_err(StepError::fail)
}

/// Stores the new login and its password. Returns the password that the vault has, and the tenant's directory entries.
async fn store_new_login(
    run: &Execution, stores: &OperationContext, tenant: TenantId, location: Option<TenantLocation>,
    password: &SecretString,
) -> Result<(LoginChange, SecretString, Vec<TenantDatabase>), StepError> {
    let (entries, entry, user) = choose_login(stores, tenant, location).await?;
    stores.registry.put_user(None, &user, run.fencing_token()).await?;
    let (login, generation) = (user.role, user.generation);
    let id = CredentialId::login(tenant, &user.database, &login, generation.0);
    let stored = stores.vault.put(&id, password, run.fencing_token()).await?;
    Ok((LoginChange { login, generation, from: entry.generation, old: entry.login }, stored, entries))
}

/// Makes sure, if this worker has taken over, that the new login can log in: a suspend, archive or purge may have set
/// it to NOLOGIN in between.
async fn restore_after_takeover(
    run: &Execution, context: &mut RotateContext, change: &LoginChange,
) -> Result<(), StepError> {
    if run.is_first() { Ok(()) } else { context.ensure_login(run, change).await }
}

async fn probe(run: &Execution, context: &mut RotateContext) -> Result<(), StepError> {
    let change = RotateContext::login_change(run)?;
    restore_after_takeover(run, context, &change).await?;
    let (password, access) = (context.password(&change).await?.password.clone(), context.login.access);
    let TenantLocation { server, names } = context.sessions.location().await?.clone();
    let login = server.login_target(&names.database, &change.login, password);
    let locked = context.sessions.locked_session(run).await?;
    // The login takes milliseconds, in which the locked session can load what the last step needs. If that fails, the
    // last step fails with its own error.
    let (probed, _) = join(login.probe(run, &names.roles, access), locked.load_catalogs(&names, &change.old)).await;
    probed
}

async fn flip(run: &Execution, context: &mut RotateContext) -> Result<Value, StepError> {
    let change = RotateContext::login_change(run)?;
    restore_after_takeover(run, context, &change).await?;
    let credential = context.credential(&change).await?;
    let entry = context.primary_entry().await?;
    if entry.generation != change.generation {
        let LoginChange { login, generation, .. } = change.clone();
        let next = TenantDatabase { login, generation, credential, ..entry };
        context.stores.registry.replace_login(change.from, &next, run.fencing_token()).await?;
    }
    serde_json::to_value(change.generation).map_err(StepError::fail)
}

async fn retire(run: &Execution, context: &mut RotateContext) -> Result<Value, StepError> {
    let change = RotateContext::login_change(run)?;
    let TenantLocation { server, names } = context.sessions.location().await?;
    let (server, database) = (server.name.clone(), names.database.clone());
    let secret = CredentialId::login(context.tenant, &database, &change.old, change.from.0);
    let old = DatabaseUser::pending(context.tenant, server, database, change.old.clone(), change.from);
    let old = old.with_status(UserStatus::Retiring);
    let (mut left, mut retry_after) = (None, RETRY_AFTER);
    if is_still_retiring(run, context, &old).await? {
        if is_left_to_queue(run, context, &old).await? {
            left = Some(String::from("its sessions may continue until the grace period is over"));
            retry_after = RotateContext::grace(run)?;
        } else {
            left = try_drop_login(run, context, &old).await?;
        }
    }
    let retry = left.as_deref().map(|reason| (reason, retry_after));
    // The old password is not needed any more: a resolver whose login is refused reads the new one.
    let settled = context.stores.registry.settle_retirement(&old, retry, Some(run.fencing_token()));
    let (settled, forgotten) = join(settled, context.stores.vault.forget(&secret, run.fencing_token())).await;
    settled?;
    forgotten?;
    serde_json::to_value(RetireOutput { left }).map_err(StepError::fail)
}

/// Whether the registry still has the old login as retiring. The worker that ran the flip knows this. A worker that
/// takes over must read it: the retirement queue may have dropped the login meanwhile.
async fn is_still_retiring(run: &Execution, context: &RotateContext, old: &DatabaseUser) -> Result<bool, StepError> {
    if run.is_first() {
        return Ok(true);
    }
    let users = context.stores.registry.users(context.tenant).await?;
    Ok(users.iter().any(|u| u.role == old.role && u.status == UserStatus::Retiring))
}

/// Whether the request leaves an old login with sessions to the queue, and this one still has sessions after a short
/// wait. An error of the wait is ignored, because the drop that follows reports it.
async fn is_left_to_queue(run: &Execution, context: &mut RotateContext, old: &DatabaseUser) -> Result<bool, StepError> {
    let grace = RotateContext::grace(run)?;
    if grace.is_zero() || !run.request::<Request>()?.defers_drop {
        return Ok(false);
    }
    let standbys = context.standbys().await?;
    let drained = match context.sessions.locked_session(run).await {
        Ok(locked) => locked.wait_for_drain(&old.role, SHORT_WAIT.min(grace), &standbys).await,
        Err(error) => Err(error),
    };
    match drained {
        Ok(is_idle) => Ok(!is_idle),
        Err(error) if error.is_fenced() || error.is_lost_writes() => Err(error),
        Err(_) => Ok(false),
    }
}

/// Tries to drop the login. Returns why it could not be dropped; the retirement queue then retries. `None`: it was
/// dropped.
async fn try_drop_login(
    run: &Execution, context: &mut RotateContext, old: &DatabaseUser,
) -> Result<Option<String>, StepError> {
    let (new_owner, grace) = (context.new_owner().await?, RotateContext::grace(run)?);
    let names = context.sessions.location().await?.names.clone();
    if !grace.is_zero() {
        // Standbys may be added during the grace period.
        context.entries = None;
    }
    let standbys = context.standbys().await?;
    let retired = match context.sessions.locked_session(run).await {
        Ok(locked) => locked.retire_login(&names, &old.role, &new_owner, grace, &standbys).await,
        Err(error) => Err(error),
    };
    match retired {
        Ok(RetiredLogin::Dropped) => Ok(None),
        Ok(RetiredLogin::Left(error)) => Ok(Some(error.cause_text())),
        Err(error) if error.is_fenced() || error.is_lost_writes() => Err(error),
        // A zero grace period means that the old password may have leaked, so the rotation must not end while the old
        // login can still enter.
        Err(error) if grace.is_zero() && old.status == UserStatus::Retiring => {
            Err(StepError::retry(error.into_cause()))
        }
        Err(error) => Ok(Some(error.cause_text())),
    }
}

/// Undo of [`RotateStep::Create`]. No node uses the new login yet. If it cannot be dropped now the undo does not wait:
/// the login becomes `Retiring`, and the retirement queue drops it later. So it does if the tenant's placement was
/// removed: the queue takes the server from the login's own row.
async fn remove_pending_logins(run: &Execution, context: &mut RotateContext) -> Result<(), StepError> {
    for user in context.pending_logins().await? {
        let left = if context.sessions.try_location().await?.is_none() {
            Some(String::from("the tenant's placement was removed before the login could be dropped"))
        } else if context.sessions.locked_session(run).await?.is_own_login(&user.role).await? {
            try_drop_login(run, context, &user).await?
        } else {
            None
        };
        if let Some(reason) = left {
            let retiring = DatabaseUser { reason: Some(reason), ..user.with_status(UserStatus::Retiring) };
            context.stores.registry.put_user(Some(UserStatus::Pending), &retiring, run.fencing_token()).await?;
        }
    }
    Ok(())
}

/// Undo of [`RotateStep::Seal`]: removes the pending logins' passwords and marks the logins as dropped.
async fn forget_pending_passwords(run: &Execution, context: &mut RotateContext) -> Result<(), StepError> {
    for user in context.pending_logins().await? {
        let secret = CredentialId::login(context.tenant, &user.database, &user.role, user.generation.0);
        context.stores.vault.forget(&secret, run.fencing_token()).await?;
        let dropped = user.with_status(UserStatus::Dropped);
        context.stores.registry.put_user(Some(UserStatus::Pending), &dropped, run.fencing_token()).await?;
    }
    Ok(())
}
