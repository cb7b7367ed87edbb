//! The steps that restore a directory entry, except those of a rotation that create and probe the login.
use crate::cluster::pg::scram;
use crate::directory::{ConnectionSettings, DatabaseUser, Generation, TenantDatabase, UserStatus};
use crate::error::{ChangeError, StepError};
use crate::operations::rotate::{LoginChange, RotateContext, RotateStep, SEAL, queue_replaced};
use crate::saga::{Execution, SagaStep};
use crate::secret::CredentialId;
use crate::store::registry::TenantRegistry;
use crate::tenant::TenantStatus;
use async_trait::async_trait;
use serde_json::Value;

/// Why the logins that the tenant had before are dropped.
const REPLACED: &str = "replaced when the doctor restored the directory entry";

/// A step of the saga.
pub(super) enum RestoreStep {
    /// Stores the name and the password of a login of a new generation, before the role exists.
    Seal,
    /// Writes the entry with these settings, and sets the new login to active. This is the pivot step.
    Publish(ConnectionSettings),
    /// Gives the logins that the publication has replaced to the queue that drops them.
    Retire,
}

#[async_trait]
impl SagaStep<RotateContext> for RestoreStep {
    fn name(&self) -> &'static str {
        match self {
            Self::Seal => SEAL,
            Self::Publish(_) => "entry.publish",
            Self::Retire => "logins.retire",
        }
    }
    /// The publication is the pivot step, so it has an intent of its own.
    fn shares_intent_with_previous(&self) -> bool {
        matches!(self, Self::Retire)
    }
    fn landlord_only(&self) -> bool {
        !matches!(self, Self::Seal)
    }
    async fn run(&self, run: &Execution, context: &mut RotateContext) -> Result<Value, StepError> {
        match self {
            Self::Seal => seal(run, context).await,
            Self::Publish(settings) => publish(run, context, settings).await,
            Self::Retire => {
                queue_replaced(run, &context.stores, context.tenant, REPLACED).await?;
                Ok(Value::Null)
            }
        }
    }
    async fn undo(&self, run: &Execution, context: &mut RotateContext) -> Result<(), StepError> {
        match self {
            Self::Seal => RotateStep::Seal.undo(run, context).await,
            _ => Ok(()),
        }
    }
}

/// Stores the new login and its password, unless an earlier worker has.
async fn seal(run: &Execution, context: &mut RotateContext) -> Result<Value, StepError> {
    require_no_entry(context).await?;
    let location = context.sessions.location().await?.clone();
    let users = context.stores.registry.users(context.tenant).await?;
    let is_here =
        |user: &&DatabaseUser| user.server == location.server.name && user.database == location.names.database;
    let user = match users.iter().filter(is_here).find(|user| user.status == UserStatus::Pending) {
        Some(pending) => pending.clone(),
        None => {
            // A generation is never used twice: a retirement of an earlier login may still be in flight on some node.
            let newest = users.iter().map(|user| user.generation.0).max().unwrap_or_default();
            let generation = Generation(newest + 1);
            let role = location.names.login(generation).map_err(StepError::fail)?;
            DatabaseUser::pending(context.tenant, location.server.name, location.names.database, role, generation)
        }
    };
    context.stores.registry.put_user(None, &user, run.fencing_token()).await?;
    let id = CredentialId::login(context.tenant, &user.database, &user.role, user.generation.0);
    context.stores.vault.put(&id, &scram::generate_password(), run.fencing_token()).await?;
    let (login, generation) = (user.role, user.generation);
    let change = LoginChange { old: login.clone(), from: generation, login, generation };
    serde_json::to_value(change).map_err(StepError::fail)
}

/// Fails unless the tenant is active and has no primary entry. The doctor saw that before the operation had its lane.
async fn require_no_entry(context: &RotateContext) -> Result<(), StepError> {
    let registry = &context.stores.registry;
    let tenant = registry.find(context.tenant.into()).await?;
    match tenant.map(|tenant| tenant.status()) {
        Some(TenantStatus::Active) => {}
        Some(found) => return Err(StepError::fail(ChangeError::Status { found })),
        None => return Err(StepError::fail(ChangeError::Unknown)),
    }
    match registry.primary(context.tenant).await? {
        Some(_) => Err(StepError::fail("the tenant has a primary database entry again, so nothing was changed")),
        None => Ok(()),
    }
}

/// Writes the entry. If an earlier worker has written it, the same call changes nothing.
///
/// A worker that has taken over first makes sure that the login can log in: a suspension may have refused it since. It
/// also keeps the address of an entry that is written, because the address is part of the entry's key.
async fn publish(
    run: &Execution, context: &mut RotateContext, settings: &ConnectionSettings,
) -> Result<Value, StepError> {
    let change = RotateContext::login_change(run)?;
    let mut published = None;
    if !run.is_first() {
        context.ensure_login(run, &change).await?;
        published = context.stores.registry.primary(context.tenant).await?;
    }
    let credential = context.credential(&change).await?;
    let location = context.sessions.location().await?.clone();
    let (server, names) = (location.server, location.names);
    let (host, port) = published.map_or((server.host, server.port), |entry| (entry.host, entry.port));
    let mut entry = TenantDatabase::primary(context.tenant, host, port, names.database, change.login, credential);
    entry.server = Some(server.name);
    entry.roles = Some(names.roles);
    entry.generation = change.generation;
    entry.settings = settings.clone();
    context.stores.registry.publish(TenantStatus::Active, &entry, run.fencing_token()).await?;
    serde_json::to_value(change.generation).map_err(StepError::fail)
}
