//! The steps of a temporary login.
//!
//! The row in the landlord comes first, so the queue of logins that wait to be dropped has the login before the server
//! does. Undo drops the role, or leaves it to that queue, which tries until it is dropped.
use super::context::{TemporaryLoginContext, has_own_reason, own_reason, recorded, request};
use super::{RECORD, RecordedLogin};
use crate::cluster::pg::ddl;
use crate::cluster::{RetiredLogin, TemporaryRights, TenantLocation};
use crate::directory::{DatabaseUser, Generation, UserStatus};
use crate::error::{ChangeError, StepError};
use crate::operations::managed::managed_primary;
use crate::operations::verb::require_active;
use crate::saga::{Execution, SagaStep};
use async_trait::async_trait;
use futures_util::future::try_join3;
use serde_json::Value;
use std::time::Duration;

/// Wait before the queue tries a drop again that failed in the undo.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The steps, in the order in which they run.
#[derive(Clone, Copy)]
pub(super) enum TemporaryLoginStep {
    /// Stores the login in the landlord, with the time at which any node drops it.
    Record,
    /// Creates the role.
    Create,
    /// Logs in as the login and checks that it acts as the expected role.
    Probe,
}

#[async_trait]
impl SagaStep<TemporaryLoginContext> for TemporaryLoginStep {
    fn name(&self) -> &'static str {
        match self {
            Self::Record => RECORD,
            Self::Create => "login.create",
            Self::Probe => "login.probe",
        }
    }
    /// The role has an intent of its own: otherwise a landlord that crashes could lose the row, and with it the time of
    /// the drop, after the role was created.
    fn shares_intent_with_previous(&self) -> bool {
        matches!(self, Self::Probe)
    }
    fn landlord_only(&self) -> bool {
        matches!(self, Self::Record)
    }
    async fn run(&self, run: &Execution, context: &mut TemporaryLoginContext) -> Result<Value, StepError> {
        match self {
            Self::Record => record(run, context).await,
            Self::Create => create(run, context).await.map(|()| Value::Null),
            Self::Probe => probe(run, context).await.map(|()| Value::Null),
        }
    }
    async fn undo(&self, run: &Execution, context: &mut TemporaryLoginContext) -> Result<(), StepError> {
        match self {
            Self::Record => forget_uncreated(run, context).await,
            Self::Create => remove(run, context).await,
            Self::Probe => Ok(()),
        }
    }
}

async fn record(run: &Execution, context: &mut TemporaryLoginContext) -> Result<Value, StepError> {
    context.password()?;
    forget_uncreated(run, context).await?;
    let TenantLocation { server, names } = context.sessions.location().await?.clone();
    let lifetime = Duration::from_millis(request(run)?.lifetime_ms);
    let generation = choose_generation(context).await?;
    let login = names.temporary_login(generation).map_err(StepError::fail)?;
    let (server, database) = (server.name, names.database);
    let user = DatabaseUser::pending(context.tenant, server.clone(), database.clone(), login.clone(), generation);
    let reason = Some(own_reason(run.operation()));
    let user = DatabaseUser { reason, ..user.with_status(UserStatus::Retiring) };
    // Read before the write, so that the time which the caller gets is not after the time of the drop.
    let expires_at = context.stores.journal.now().await? + lifetime;
    context.stores.registry.put_retiring(&user, lifetime, run.fencing_token()).await?;
    serde_json::to_value(RecordedLogin { server, database, login, expires_at }).map_err(StepError::fail)
}

/// A generation that no login of the tenant has had. A login's name is never used twice: a drop of the earlier one may
/// still be in flight on some node.
async fn choose_generation(context: &mut TemporaryLoginContext) -> Result<Generation, StepError> {
    let (registry, id) = (&context.stores.registry, context.tenant);
    let reads = try_join3(registry.find(id.into()), registry.databases(id), registry.users(id));
    let (tenant, entries, users) = reads.await?;
    require_active(&tenant.ok_or_else(|| StepError::fail(ChangeError::Unknown))?).map_err(StepError::fail)?;
    let location = context.sessions.try_location().await?;
    let placed = location.map(|location| (&location.server.name, &location.names.database));
    let entry = managed_primary(&entries, placed).map_err(StepError::fail)?;
    let newest = users.iter().map(|user| user.generation).max().unwrap_or(entry.generation).max(entry.generation);
    Ok(Generation(newest.0 + 1))
}

async fn create(run: &Execution, context: &mut TemporaryLoginContext) -> Result<(), StepError> {
    let password = context.password()?;
    let login = require_recorded(run)?;
    let names = context.sessions.location().await?.names.clone();
    let locked = context.sessions.locked_session(run).await?;
    let left = login.expires_at - context.stores.journal.now().await?;
    let remaining = Duration::try_from(left).map_err(|_| StepError::fail(TOO_LATE))?;
    let rights = TemporaryRights { access: context.access, read_only: request(run)?.read_only, remaining };
    locked.create_temporary_login(&names, &login.login, &rights, &password.verifier).await?;
    // The queue may have taken the login before the role existed, and has then recorded it as dropped.
    let own = context.own_logins(run).await?;
    match own.iter().any(|user| user.role == login.login && user.status == UserStatus::Retiring) {
        true => Ok(()),
        false => Err(StepError::fail(TOO_LATE)),
    }
}

const TOO_LATE: &str = "the lifetime of the temporary login was over before the login was created; call it again with a \
    longer lifetime";

async fn probe(run: &Execution, context: &mut TemporaryLoginContext) -> Result<(), StepError> {
    let (password, login) = (context.password()?, require_recorded(run)?);
    let TenantLocation { server, names } = context.sessions.location().await?.clone();
    let target = server.login_target(&names.database, &login.login, password.password.clone());
    target.probe(run, &names.roles, context.access).await
}

fn require_recorded(run: &Execution) -> Result<RecordedLogin, StepError> {
    recorded(run)?.ok_or_else(|| StepError::fail("step login.record has stored no output, so the login is unknown"))
}

/// Undo of [`TemporaryLoginStep::Record`]: the role does not exist. A login that the undo of the next step has left to
/// the queue has another reason, and stays there.
async fn forget_uncreated(run: &Execution, context: &mut TemporaryLoginContext) -> Result<(), StepError> {
    for user in context.own_logins(run).await?.into_iter().filter(|user| has_own_reason(user, run.operation())) {
        context.stores.registry.settle_retirement(&user, None, Some(run.fencing_token())).await?;
    }
    Ok(())
}

/// Undo of [`TemporaryLoginStep::Create`]. No process has the password any more, so a login that cannot be dropped now
/// does not keep the undo from ending: it is due at once, and the queue drops it.
async fn remove(run: &Execution, context: &mut TemporaryLoginContext) -> Result<(), StepError> {
    for user in context.own_logins(run).await? {
        let left = match drop_login(run, context, &user).await {
            Ok(()) => None,
            Err(error) if error.is_fenced() || error.is_lost_writes() => return Err(error),
            Err(error) => Some(error.cause_text()),
        };
        let (registry, writer) = (&context.stores.registry, run.fencing_token());
        match left.as_deref() {
            // The queue has recorded it as dropped before the role existed.
            Some(reason) if user.status == UserStatus::Dropped => {
                let user = DatabaseUser { reason: Some(reason.into()), ..user.with_status(UserStatus::Retiring) };
                registry.put_user(Some(UserStatus::Dropped), &user, writer).await?;
            }
            left => {
                let left = left.map(|reason| (reason, RETRY_AFTER));
                registry.settle_retirement(&user, left, Some(writer)).await?;
            }
        }
    }
    Ok(())
}

async fn drop_login(
    run: &Execution, context: &mut TemporaryLoginContext, user: &DatabaseUser,
) -> Result<(), StepError> {
    let names = context.sessions.location().await?.names.clone();
    let standbys = context.stores.standbys(context.tenant, &names.database).await?;
    let new_owner = ddl::acts_as(&names.roles, context.access).clone();
    let locked = context.sessions.locked_session(run).await?;
    if !locked.is_own_login(&user.role).await? {
        return Ok(());
    }
    match locked.retire_login(&names, &user.role, &new_owner, Duration::ZERO, &standbys).await? {
        RetiredLogin::Dropped => Ok(()),
        RetiredLogin::Left(error) => Err(error),
    }
}
