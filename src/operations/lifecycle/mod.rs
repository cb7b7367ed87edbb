//! Suspend, activate, archive, restore, purge: sagas of the `fence` lane over the same "ensure absent" statements as the undo of a
//! provisioning. Each begins with the fence on the server, so that it holds on nodes that know nothing of it.
use crate::cluster::{OperationContext, ended};
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

/// What is stored of a call.
#[derive(Serialize, Deserialize)]
struct Request {
    tenant: TenantId,
    verb: Verb,
}

/// What a purge did with keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Purged {
    /// The tenant that was, status `deleted`.
    pub tenant: Tenant,
    /// Whether records in old backups of the landlord still open.
    pub keys: KeyDisposal,
}

/// Changes tenants. It spawns nothing: dropping one of its futures is like the death of the process.
#[derive(Clone)]
pub struct Lifecycle {
    stores: OperationContext,
    engine: Engine,
    sagas: [Arc<LifecycleSaga>; 5],
}

impl Lifecycle {
    /// Over these stores. `access`: what an application's login may do; one that is let in again gets it.
    pub fn new(stores: OperationContext, engine: Engine, access: AppAccess) -> Self {
        let sagas = Verb::KINDS.map(|verb| Arc::new(LifecycleSaga::new(stores.clone(), verb, access)));
        Self { stores, engine, sagas }
    }
    /// The sagas, for a [`Recoverer`](crate::saga::Recoverer).
    pub fn sagas(&self) -> Vec<Arc<dyn AnySaga>> {
        self.sagas.iter().map(|s| s.clone() as Arc<dyn AnySaga>).collect()
    }

    /// Begins and drives it to its end. With a key that is known, waits for that operation instead.
    ///
    /// # Cancel safety
    /// Before the intent's commit nothing has happened; after it recovery goes on.
    pub async fn apply(&self, verb: Verb, tenant: TenantRef<'_>, observer: &Observer) -> Result<Tenant, ChangeError> {
        match self.begin(verb, tenant, None, None).await? {
            Begun::New(record) => {
                let saga = self.sagas.iter().find(|s| s.verb().kind() == verb.kind());
                let saga = saga.ok_or_else(|| StoreError::conflict("no such saga"))?;
                let outcome = self.engine.drive(&**saga, *record, true, observer).await?;
                self.tenant_after(outcome).await
            }
            Begun::Joined(record) => self.tenant_after(Outcome::of(self.stores.wait(record.id).await?)).await,
            Begun::KeyReused(operation) => Err(ChangeError::KeyReused { operation }),
            Begun::Busy(operation) => Err(ChangeError::Busy { operation }),
        }
    }

    /// Commits the intent, under which the caller then holds the operation, or finds the one that has its key.
    pub async fn begin(
        &self, verb: Verb, tenant: TenantRef<'_>, key: Option<String>, reason: Option<String>,
    ) -> Result<Begun, ChangeError> {
        let found = self.stores.registry.find(tenant).await?.ok_or(ChangeError::Unknown)?;
        let saga = self.sagas.iter().find(|s| s.verb().kind() == verb.kind());
        let saga = saga.ok_or_else(|| StoreError::conflict("no such saga"))?;
        let intent = Intent {
            key,
            reason,
            request: serde_json::to_value(Request { tenant: found.id(), verb }).map_err(StoreError::corrupt)?,
            intended: Engine::first_intent(&**saga),
            total: saga.len(),
            worker: Uuid::now_v7().to_string(),
            lease: self.engine.settings().lease,
            ..Intent::new(OperationId::new(), verb.kind(), Lane::Preempt, Subject::Tenant(found.id()))
        };
        if let Some(begun) = self.stores.known(&intent).await? {
            return Ok(begun);
        }
        let now = match verb.asks_the_time() {
            true => Some(self.engine.journal().now().await?),
            false => None,
        };
        verb.check(&found, now)?;
        if verb.shuts_out() {
            entries::verify_entries(&self.stores, found.id()).await?;
        }
        self.stores.begin(&intent).await
    }

    /// The tenant after an operation ended, or why it did not end well.
    pub async fn tenant_after(&self, outcome: Outcome) -> Result<Tenant, ChangeError> {
        let record = ended(outcome)?;
        let id = record.subject.tenant().ok_or(ChangeError::Unknown)?;
        self.stores.registry.find(id.into()).await?.ok_or(ChangeError::Unknown)
    }

    /// The same for a purge.
    pub async fn purged(&self, outcome: Outcome) -> Result<Purged, ChangeError> {
        let record = ended(outcome)?;
        let keys = record.outputs.get(answers::FORGET).and_then(|v| serde_json::from_value(v.clone()).ok());
        let id: TenantId = record.subject.tenant().ok_or(ChangeError::Unknown)?;
        let tenant = self.stores.registry.find(id.into()).await?.ok_or(ChangeError::Unknown)?;
        Ok(Purged { tenant, keys: keys.unwrap_or(KeyDisposal::SharedKey) })
    }
}
