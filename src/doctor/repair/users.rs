//! The repairs of a tenant's rows in the landlord: its placement, and the logins that it has had.
//!
//! The registry stores, with each changed status of a login, the status before and the operation that changed it. The
//! operation has the reason and the time.
use super::Refused;
use super::answers::Applied;
use super::context::RepairContext;
use crate::cluster::{RetiredLogin, TenantLocation};
use crate::directory::{DatabaseUser, UserStatus};
use crate::error::StepError;
use crate::names::RoleName;
use crate::operations::rotate::{GRACE, queue_replaced};
use crate::saga::Execution;
use crate::secret::CredentialId;
use crate::store::registry::{Placement, TenantRegistry};
use crate::tenant::{TenantId, TenantStatus};
use std::time::Duration;

/// Why a login is dropped that is not in use.
const NOT_IN_USE: &str = "retired by the doctor: the login is not in use";
/// Why a login is dropped that the directory entry does not name.
const REPLACED: &str = "retired by the doctor: the directory entry names another login";
/// Wait before the queue of replaced logins first tries a drop that failed in the repair.
const RETRY_AFTER: Duration = Duration::from_secs(2);

fn changed() -> StepError {
    StepError::fail(Refused::Changed)
}

/// Stores the placement that the primary entry names.
pub(super) async fn restore_placement(run: &Execution, context: &mut RepairContext) -> Result<(), StepError> {
    let (tenant, stores) = (context.tenant(run)?, &context.tools.stores);
    let entry = stores.registry.primary(tenant).await?.ok_or_else(changed)?;
    let server = entry.server.ok_or_else(changed)?;
    let placement = Placement::new(tenant, server, entry.database);
    Ok(stores.servers.reserve(&placement, run.fencing_token()).await?)
}

/// Records the entry's login as the active one, and any other active login as retiring.
pub(super) async fn sync_logins(run: &Execution, context: &mut RepairContext) -> Result<(), StepError> {
    let (tenant, stores, token) = (context.tenant(run)?, &context.tools.stores, run.fencing_token());
    let entry = stores.registry.primary(tenant).await?.ok_or_else(changed)?;
    let server = entry.server.clone().ok_or_else(changed)?;
    let users = stores.registry.users(tenant).await?;
    let recorded = users.iter().find(|user| user.role == entry.login && user.server == server);
    let login = (entry.database.clone(), entry.login.clone(), entry.generation);
    let pending = DatabaseUser::pending(tenant, server, login.0, login.1, login.2);
    match recorded.map(|user| user.status) {
        None => stores.registry.put_user(None, &pending, token).await?,
        Some(UserStatus::Dropped) => stores.registry.put_user(Some(UserStatus::Dropped), &pending, token).await?,
        Some(_) => {}
    }
    stores.registry.put_database(Some(entry.generation), &entry, Some(token)).await?;
    queue_replaced(run, stores, tenant, REPLACED).await
}

/// Records a login as dropped, after it was read under the tenant's lock that no such role exists.
pub(super) async fn forget_login(
    run: &Execution, context: &mut RepairContext, login: &RoleName, before: UserStatus,
) -> Result<(), StepError> {
    let user = find_user(run, context, login).await?.ok_or_else(changed)?;
    if context.locked_session(run).await?.has_role(login).await? || is_in_use(run, context, login).await? {
        return Err(changed());
    }
    let dropped = user.clone().with_status(UserStatus::Dropped);
    context.tools.stores.registry.put_user(Some(before), &dropped, run.fencing_token()).await?;
    forget_password(run, context, &user).await
}

/// Records a login as retiring, lets its sessions continue for the grace period, ends those that are left, and drops it.
/// If it cannot be dropped now, the queue of replaced logins tries again.
pub(super) async fn retire_login(
    run: &Execution, context: &mut RepairContext, login: &RoleName, before: Option<UserStatus>,
) -> Result<Applied, StepError> {
    if is_in_use(run, context, login).await? {
        return Err(changed());
    }
    let user = record_as_retiring(run, context, login, before).await?;
    let names = context.location().await?.names;
    let (tenant, new_owner) = (context.tenant(run)?, context.group_role(&names));
    let standbys = context.tools.stores.standbys(tenant, &names.database).await?;
    let grace = find_grace(context, tenant).await?;
    let locked = context.locked_session(run).await?;
    let left = match locked.retire_login(&names, login, &new_owner, grace, &standbys).await? {
        RetiredLogin::Dropped => None,
        RetiredLogin::Left(error) => Some(error.cause_text()),
    };
    let retry = left.as_deref().map(|reason| (reason, RETRY_AFTER));
    context.tools.stores.registry.settle_retirement(&user, retry, Some(run.fencing_token())).await?;
    if left.is_none() {
        forget_password(run, context, &user).await?;
    }
    Ok(Applied { left })
}

/// How long sessions of a login that is dropped may continue: as after a rotation, because a node or a person may use them
/// now. Those of a closed tenant must end at once.
async fn find_grace(context: &RepairContext, tenant: TenantId) -> Result<Duration, StepError> {
    let found = context.tools.stores.registry.find(tenant.into()).await?;
    let is_active = found.is_some_and(|found| found.status() == TenantStatus::Active);
    Ok(if is_active { GRACE } else { Duration::ZERO })
}

/// An earlier worker of this operation may have recorded the login as retiring or as dropped.
async fn record_as_retiring(
    run: &Execution, context: &mut RepairContext, login: &RoleName, before: Option<UserStatus>,
) -> Result<DatabaseUser, StepError> {
    let found = find_user(run, context, login).await?;
    let status = found.as_ref().map(|user| user.status);
    let user = match found {
        Some(user) if user.status == UserStatus::Retiring => return Ok(user),
        Some(user) if Some(user.status) == before || user.status == UserStatus::Dropped => user,
        None if before.is_none() => {
            let TenantLocation { server, names } = context.location().await?;
            let generation = names.generation_of(login.as_str()).ok_or_else(changed)?;
            DatabaseUser::pending(context.tenant(run)?, server.name, names.database, login.clone(), generation)
        }
        _ => return Err(changed()),
    };
    let retiring = DatabaseUser { reason: Some(NOT_IN_USE.into()), ..user.with_status(UserStatus::Retiring) };
    context.tools.stores.registry.put_user(status, &retiring, run.fencing_token()).await?;
    Ok(retiring)
}

async fn find_user(
    run: &Execution, context: &mut RepairContext, login: &RoleName,
) -> Result<Option<DatabaseUser>, StepError> {
    let server = context.location().await?.server.name;
    let users = context.tools.stores.registry.users(context.tenant(run)?).await?;
    Ok(users.into_iter().find(|user| user.role == *login && user.server == server))
}

/// Whether a directory entry of the tenant names this login.
async fn is_in_use(run: &Execution, context: &RepairContext, login: &RoleName) -> Result<bool, StepError> {
    let entries = context.tools.stores.registry.databases(context.tenant(run)?).await?;
    Ok(entries.iter().any(|entry| entry.login == *login))
}

async fn forget_password(run: &Execution, context: &RepairContext, user: &DatabaseUser) -> Result<(), StepError> {
    let id = CredentialId::login(user.tenant, &user.database, &user.role, user.generation.0);
    Ok(context.tools.stores.vault.forget(&id, run.fencing_token()).await?)
}
