//! Suspend, activate, archive, restore and purge of existing tenants.
//!
//! Each verb is a saga of the preempt lane, so it does not wait for an open change of the tenant, such as a rotation or
//! a migration. Suspend, archive and purge park that change; activate and restore resume it; purge ends it. The facade
//! drives the sagas through [`Lifecycle`]. A verb that closes a tenant refuses its logins on the PostgreSQL server
//! before it changes the stored status, so it also takes effect on nodes that have not yet learned of the new status.
use crate::cluster::{OperationContext, require_done};
use crate::directory::AppAccess;
use crate::error::{ChangeError, StoreError};
use crate::operation::{Lane, OperationId, Subject};
use crate::saga::{AnySaga, Engine, Observer, Outcome};
use crate::store::journal::{Begun, Intent};
use crate::store::vault::KeyDisposal;
use crate::tenant::{Tenant, TenantId, TenantRef};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

mod answers;
mod context;
mod entries;
mod saga;
mod server;
mod shut_out;
mod steps;
mod verb;
pub(crate) use answers::END_SESSIONS;
use saga::LifecycleSaga;
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

/// Begins and drives lifecycle operations. It spawns no task: if one of its futures is dropped, the work stops there,
/// and recovery continues it after the lease.
#[derive(Clone)]
pub struct Lifecycle {
    stores: OperationContext,
    engine: Engine,
    sagas: [Arc<LifecycleSaga>; 5],
}

impl Lifecycle {
    /// Creates the driver over these stores. `access` is what an application's login may do; a login that is admitted
    /// again gets it.
    pub fn new(stores: OperationContext, engine: Engine, access: AppAccess) -> Self {
        let sagas = Verb::KINDS.map(|verb| Arc::new(LifecycleSaga::new(stores.clone(), verb, access)));
        Self { stores, engine, sagas }
    }
    /// The saga of each verb, for a [`Recoverer`](crate::saga::Recoverer).
    pub fn sagas(&self) -> Vec<Arc<dyn AnySaga>> {
        self.sagas.iter().map(|s| s.clone() as Arc<dyn AnySaga>).collect()
    }

    /// Begins a lifecycle operation and drives it to its end.
    ///
    /// # Cancel safety
    /// A future dropped before the intent is committed leaves nothing. After the commit recovery continues the
    /// operation.
    pub async fn apply(&self, verb: Verb, tenant: TenantRef<'_>, observer: &Observer) -> Result<Tenant, ChangeError> {
        match self.begin(verb, tenant, None, None).await? {
            Begun::New(record) => {
                let saga = self.sagas.iter().find(|s| s.verb().kind() == verb.kind());
                let saga = saga.ok_or_else(|| StoreError::conflict("no saga is registered for this verb"))?;
                let outcome = self.engine.drive(&**saga, *record, true, observer).await?;
                self.tenant_after(outcome).await
            }
            Begun::Joined(record) => self.tenant_after(Outcome::from_record(self.stores.wait(record.id).await?)).await,
            Begun::KeyReused(operation) => Err(ChangeError::KeyReused { operation }),
            Begun::Busy(operation) => Err(ChangeError::Busy { operation }),
        }
    }

    /// Commits the intent of a new operation, which the caller must then drive, or finds the operation that already has
    /// `key`.
    pub async fn begin(
        &self, verb: Verb, tenant: TenantRef<'_>, key: Option<String>, reason: Option<String>,
    ) -> Result<Begun, ChangeError> {
        let found = self.stores.registry.find(tenant).await?.ok_or(ChangeError::Unknown)?;
        let saga = self.sagas.iter().find(|s| s.verb().kind() == verb.kind());
        let saga = saga.ok_or_else(|| StoreError::conflict("no saga is registered for this verb"))?;
        let intent = Intent {
            key,
            reason,
            request: serde_json::to_value(Request { tenant: found.id(), verb }).map_err(StoreError::corrupt)?,
            intended: Engine::first_intent_steps(&**saga),
            total: saga.len(),
            worker: Uuid::now_v7().to_string(),
            lease: self.engine.settings().lease,
            ..Intent::new(OperationId::new(), verb.kind(), Lane::Preempt, Subject::Tenant(found.id()))
        };
        if let Some(begun) = self.stores.find_joined(&intent).await? {
            return Ok(begun);
        }
        let now = match verb.is_bound_by_deadline() {
            true => Some(self.engine.journal().now().await?),
            false => None,
        };
        verb.check(&found, now)?;
        if verb.is_closing() {
            entries::verify_entries(&self.stores, found.id()).await?;
        }
        self.stores.begin(&intent).await
    }

    /// Converts the outcome of an operation to the changed tenant, or to the caller's error.
    pub async fn tenant_after(&self, outcome: Outcome) -> Result<Tenant, ChangeError> {
        let record = require_done(outcome)?;
        let id = record.subject.tenant().ok_or(ChangeError::Unknown)?;
        self.stores.registry.find(id.into()).await?.ok_or(ChangeError::Unknown)
    }

    /// Converts the outcome of a purge to the result that the caller gets.
    pub async fn purged(&self, outcome: Outcome) -> Result<Purged, ChangeError> {
        let record = require_done(outcome)?;
        let keys = record.outputs.get(answers::FORGET).and_then(|v| serde_json::from_value(v.clone()).ok());
        let id: TenantId = record.subject.tenant().ok_or(ChangeError::Unknown)?;
        let tenant = self.stores.registry.find(id.into()).await?.ok_or(ChangeError::Unknown)?;
        Ok(Purged { tenant, keys: keys.unwrap_or(KeyDisposal::SharedKey) })
    }
}
