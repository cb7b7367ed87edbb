//! Suspend, activate, archive, restore and purge of existing tenants, and closing a closed tenant again.
//!
//! Each of these operations is a saga of the preempt lane, so it does not wait for an open change of the tenant, such
//! as a rotation or a migration. Suspend, archive and purge park that change; activate and restore resume it; purge
//! ends it. The facade begins them through [`Lifecycle`]. An operation that closes a tenant refuses its logins on the
//! PostgreSQL server before it changes the stored status, so it also takes effect on nodes that have not yet learned of
//! the new status.
use crate::cluster::{OperationContext, require_done};
use crate::directory::AppAccess;
use crate::error::ChangeError;
use crate::operation::Subject;
use crate::operations::managed;
use crate::saga::{AnySaga, CallOptions, Engine, Outcome, Saga, Started};
use crate::store::vault::KeyDisposal;
use crate::tenant::{Tenant, TenantId, TenantRef};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

mod answers;
mod context;
mod entries;
mod requests;
mod running_change;
mod saga;
mod shut_out;
mod steps;
mod verb;
use answers::END_SESSIONS;
use context::LifecycleContext;
pub use requests::{Activate, Archive, Purge, Restore, Suspend};
pub use shut_out::ShutOut;
pub use verb::Verb;

/// The request as the journal stores it.
#[derive(Serialize, Deserialize)]
struct Request {
    tenant: TenantId,
    verb: Verb,
}

/// A purged tenant, and what became of its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Purged {
    /// The purged tenant, whose status is `deleted`.
    pub tenant: Tenant,
    /// What became of the key of the tenant's secrets, which decides whether secrets in old backups of the landlord can
    /// still be opened.
    pub keys: KeyDisposal,
}

/// Begins lifecycle operations and reads their results. It spawns no task: if one of its futures is dropped, the work
/// stops there, and recovery continues it after the lease.
#[derive(Clone)]
pub struct Lifecycle {
    stores: OperationContext,
    engine: Engine,
    suspend: Arc<Saga<LifecycleContext>>,
    activate: Arc<Saga<LifecycleContext>>,
    archive: Arc<Saga<LifecycleContext>>,
    restore: Arc<Saga<LifecycleContext>>,
    close_again: Arc<Saga<LifecycleContext>>,
    purge: Arc<Saga<LifecycleContext>>,
}

impl Lifecycle {
    /// Creates the driver over these stores. `access`: the rights that a login gets when it is admitted again.
    pub fn new(stores: OperationContext, engine: Engine, access: AppAccess) -> Self {
        let define = |verb| Arc::new(saga::define(verb, stores.clone(), access));
        Self {
            suspend: define(Verb::Suspend),
            activate: define(Verb::Activate),
            archive: define(Verb::Archive { keep_for: 0 }),
            restore: define(Verb::Restore),
            close_again: define(Verb::CloseAgain),
            purge: define(Verb::Purge { force: false }),
            stores,
            engine,
        }
    }
    /// The saga of each lifecycle operation, for a [`Recoverer`](crate::saga::Recoverer).
    pub fn sagas(&self) -> [Arc<dyn AnySaga>; 6] {
        let Self { suspend, activate, archive, restore, close_again, purge, .. } = self;
        [suspend, activate, archive, restore, close_again, purge].map(|saga| saga.clone() as Arc<dyn AnySaga>)
    }
    fn saga(&self, verb: Verb) -> &Arc<Saga<LifecycleContext>> {
        match verb {
            Verb::Suspend => &self.suspend,
            Verb::Activate => &self.activate,
            Verb::Archive { .. } => &self.archive,
            Verb::Restore => &self.restore,
            Verb::CloseAgain => &self.close_again,
            Verb::Purge { .. } => &self.purge,
        }
    }

    /// Begins a lifecycle operation and drives it to its end.
    ///
    /// # Cancel safety
    /// A future dropped before the intent is committed leaves nothing. After the commit recovery continues the
    /// operation.
    pub async fn apply(&self, verb: Verb, tenant: TenantRef<'_>, options: &CallOptions) -> Result<Tenant, ChangeError> {
        let outcome = match self.begin(verb, tenant, options).await? {
            Started::New(operation) => operation.drive(&self.engine, &options.observer).await?,
            Started::Joined(record) => Outcome::from_record(self.stores.wait(record.id).await?),
        };
        self.read_tenant_after(outcome).await
    }

    /// Commits the intent of a new operation, or finds the operation that already has the key.
    pub async fn begin(
        &self, verb: Verb, tenant: TenantRef<'_>, options: &CallOptions,
    ) -> Result<Started, ChangeError> {
        let found = self.stores.registry.find(tenant).await?.ok_or(ChangeError::Unknown)?;
        let (saga, request) = (self.saga(verb), Request { tenant: found.id(), verb });
        let intent = self.engine.intent(saga, Subject::Tenant(found.id()), &request, options)?;
        self.engine.begin(saga, &intent, self.check(verb, &found)).await
    }

    /// Fails unless the tenant's status, its deadline, its directory entries and its other operations allow the
    /// operation.
    async fn check(&self, verb: Verb, tenant: &Tenant) -> Result<(), ChangeError> {
        let now = match verb.is_bound_by_deadline() {
            true => Some(self.engine.journal().now().await?),
            false => None,
        };
        verb.check(tenant, now)?;
        verify_landlord(verb, &self.stores, tenant).await
    }

    /// Converts the outcome of an operation to the changed tenant, or to the caller's error.
    pub async fn read_tenant_after(&self, outcome: Outcome) -> Result<Tenant, ChangeError> {
        let record = require_done(outcome)?;
        let id = record.subject.tenant().ok_or(ChangeError::Unknown)?;
        self.stores.registry.find(id.into()).await?.ok_or(ChangeError::Unknown)
    }

    /// Converts the outcome of a purge to the result that the caller gets.
    pub async fn read_purged(&self, outcome: Outcome) -> Result<Purged, ChangeError> {
        let record = require_done(outcome)?;
        let keys = record.outputs.get(answers::FORGET).and_then(|v| serde_json::from_value(v.clone()).ok());
        let id: TenantId = record.subject.tenant().ok_or(ChangeError::Unknown)?;
        let tenant = self.stores.registry.find(id.into()).await?.ok_or(ChangeError::Unknown)?;
        Ok(Purged { tenant, keys: keys.unwrap_or(KeyDisposal::SharedKey) })
    }
}

/// Fails unless the tenant's directory entries and its other operations allow the operation.
async fn verify_landlord(verb: Verb, stores: &OperationContext, tenant: &Tenant) -> Result<(), ChangeError> {
    if verb.is_closing() {
        entries::verify_entries(stores, tenant).await?;
        // A migration of a suspended tenant has the tenant's lock. This lane would terminate its session.
        return match verb {
            Verb::CloseAgain => running_change::verify_no_running_change(&*stores.journal, tenant.id()).await,
            _ => Ok(()),
        };
    }
    managed::require_built_primary(stores, tenant.id()).await?;
    match verb {
        Verb::Activate => running_change::verify_no_running_change(&*stores.journal, tenant.id()).await,
        _ => Ok(()),
    }
}
