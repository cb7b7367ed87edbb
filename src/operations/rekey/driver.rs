//! Begins rekey operations and reads their results. The facade makes a [`RekeyVault`].
use super::{Rekeyed, saga};
use crate::cluster::{OperationContext, require_done};
use crate::error::{ChangeError, StoreError};
use crate::operation::Subject;
use crate::operations::verb::CallVerb;
use crate::saga::{AnySaga, CallOptions, Engine, Outcome, Saga, Started};
use async_trait::async_trait;
use serde_json::json;
use std::sync::Arc;

/// Type parameter of `Call` for [`rekey`](crate::Tenantry::rekey); not used directly.
pub struct RekeyVault(());
impl RekeyVault {
    pub(crate) fn new() -> Self {
        Self(())
    }
}

#[async_trait]
impl CallVerb for RekeyVault {
    type Driver = Rekey;
    type Answer = Rekeyed;
    type Error = ChangeError;
    async fn begin(self, Rekey { engine, saga, .. }: &Rekey, options: &CallOptions) -> Result<Started, ChangeError> {
        let intent = engine.intent(saga, Subject::Vault, &json!({}), options)?;
        engine.begin(saga, &intent, async { Ok(()) }).await
    }
    async fn answer(driver: &Rekey, outcome: Outcome) -> Result<Rekeyed, ChangeError> {
        require_done(outcome)?;
        let keys = driver.stores.vault.keys_in_use().await.map_err(StoreError::from)?;
        Ok(Rekeyed { keys })
    }
}

/// Begins rekey operations. It spawns no task: if one of its futures is dropped, the work stops there, and recovery
/// continues it after the lease.
#[derive(Clone)]
pub struct Rekey {
    stores: OperationContext,
    engine: Engine,
    saga: Arc<Saga<OperationContext>>,
}

impl Rekey {
    /// Creates the driver of rekey operations over these stores.
    pub(crate) fn new(stores: OperationContext, engine: Engine) -> Self {
        Self { saga: Arc::new(saga::define(stores.clone())), stores, engine }
    }
    /// The rekey saga, for a [`Recoverer`](crate::saga::Recoverer).
    pub(crate) fn saga(&self) -> Arc<dyn AnySaga> {
        self.saga.clone()
    }
}
