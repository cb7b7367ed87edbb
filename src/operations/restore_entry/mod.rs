//! Restores the directory entry of a tenant whose database exists: incident "tenant database configuration not found".
//!
//! The doctor begins it for an active tenant that has a placement and no primary entry. The operation creates a login of
//! its own in the tenant's database, probes it, and only then writes the entry. Logins that the tenant had before are
//! left to the queue of replaced logins.
//!
//! Invariant: the entry is written only after a session of its login has shown that it acts as the tenant's group role.
use crate::cluster::{OperationContext, require_done};
use crate::directory::ConnectionSettings;
use crate::error::ChangeError;
use crate::operation::Subject;
use crate::operations::rotate::{AppLogin, Request, RotateContext};
use crate::operations::verb::{CallVerb, require_active};
use crate::saga::{AnySaga, CallOptions, Engine, Outcome, Saga, Started};
use crate::store::registry::TenantRegistry;
use crate::tenant::{Tenant, TenantId};
use async_trait::async_trait;
use std::sync::Arc;

mod saga;
mod steps;

/// The stored kind of the operation.
pub(crate) const KIND: &str = "restore_entry";

/// The request to restore the entry of this tenant.
pub(crate) struct RestoreEntry(pub(crate) TenantId);

#[async_trait]
impl CallVerb for RestoreEntry {
    type Driver = EntryRestoration;
    type Answer = Tenant;
    type Error = ChangeError;
    async fn begin(self, driver: &EntryRestoration, options: &CallOptions) -> Result<Started, ChangeError> {
        let EntryRestoration { stores, engine, saga } = driver;
        let found = stores.registry.find(self.0.into()).await?.ok_or(ChangeError::Unknown)?;
        // The steps of a rotation read it. No login is replaced before the entry is written, so there is no grace period.
        let request = Request { tenant: found.id(), grace_ms: 0, defers_drop: false };
        let intent = engine.intent(saga, Subject::Tenant(found.id()), &request, options)?;
        engine.begin(saga, &intent, async { require_active(&found) }).await
    }
    async fn answer(driver: &EntryRestoration, outcome: Outcome) -> Result<Tenant, ChangeError> {
        let record = require_done(outcome)?;
        let id = record.subject.tenant().ok_or(ChangeError::Unknown)?;
        driver.stores.registry.find(id.into()).await?.ok_or(ChangeError::Unknown)
    }
}

/// Begins these operations. It spawns no task: if one of its futures is dropped, the work stops there, and recovery
/// continues it after the lease.
#[derive(Clone)]
pub(crate) struct EntryRestoration {
    stores: OperationContext,
    engine: Engine,
    saga: Arc<Saga<RotateContext>>,
}

impl EntryRestoration {
    /// Creates the driver over these stores. `login` and `settings` are those of a new tenant's login and sessions.
    pub(crate) fn new(stores: OperationContext, engine: Engine, login: AppLogin, settings: ConnectionSettings) -> Self {
        let saga = Arc::new(saga::define(stores.clone(), login, settings));
        Self { stores, engine, saga }
    }
    /// The saga, for a [`Recoverer`](crate::saga::Recoverer).
    pub(crate) fn saga(&self) -> Arc<dyn AnySaga> {
        self.saga.clone()
    }
}
