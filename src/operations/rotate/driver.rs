//! Begins rotations and reads their results. The facade makes a [`Rotate`].
use super::context::RotateContext;
use super::login_change::{LoginChange, SEAL};
use super::steps::{FLIP, RETIRE, RetireOutput};
use super::{AppLogin, GRACE, Request, Rotated, saga};
use crate::cluster::{OperationContext, require_done};
use crate::error::{ChangeError, StoreError};
use crate::operation::Subject;
use crate::operations::managed::require_managed;
use crate::operations::verb::{CallVerb, require_active};
use crate::saga::{AnySaga, CallOptions, Engine, NewOperation, Outcome, Saga, Started};
use crate::store::journal::{Begun, Record};
use crate::tenant::{TenantId, TenantRef};
use async_trait::async_trait;
use std::{sync::Arc, time::Duration};
use time::OffsetDateTime;

/// Type parameter of `Call` for [`rotate`](crate::Tenantry::rotate); not used directly.
pub struct Rotate {
    tenant: TenantRef<'static>,
    pub(crate) grace: Duration,
    /// See [`Request::defers_drop`].
    pub(crate) defers_drop: bool,
}
impl Rotate {
    pub(crate) fn new(tenant: TenantRef<'_>) -> Self {
        Self { tenant: tenant.into_owned(), grace: GRACE, defers_drop: false }
    }
}

#[async_trait]
impl CallVerb for Rotate {
    type Driver = Rotation;
    type Answer = Rotated;
    type Error = ChangeError;
    /// Opens the first worker's session while the intent is committed, which saves the time of a login.
    async fn begin(self, driver: &Rotation, options: &CallOptions) -> Result<Started, ChangeError> {
        let Rotation { stores, engine, login, saga } = driver;
        let found = stores.registry.find(self.tenant).await?.ok_or(ChangeError::Unknown)?;
        let grace_ms = u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX);
        let request = Request { tenant: found.id(), grace_ms, defers_drop: self.defers_drop };
        let intent = engine.intent(saga, Subject::Tenant(found.id()), &request, options)?;
        let mut context = None;
        let check = async {
            require_active(&found)?;
            context = Some(RotateContext::start_preconnecting(stores.clone(), *login, &intent, found.id()));
            require_managed(stores, found.id()).await
        };
        Ok(match engine.commit(&intent, check).await? {
            Begun::New(record) => Started::New(NewOperation::new(saga.clone(), record, context)),
            Begun::Joined(record) => Started::Joined(record),
        })
    }
    async fn answer(driver: &Rotation, outcome: Outcome) -> Result<Rotated, ChangeError> {
        let record = require_done(outcome)?;
        let id: TenantId = record.subject.tenant().ok_or(ChangeError::Unknown)?;
        let tenant = driver.stores.registry.find(id.into()).await?.ok_or(ChangeError::Unknown)?;
        let change: LoginChange = read_output(&record, SEAL)?;
        let retired: Option<RetireOutput> = read_output(&record, RETIRE)?;
        Ok(Rotated { tenant, generation: change.generation, retiring: retired.and_then(|r| r.left) })
    }
}

/// Begins rotations of tenants' logins and retires the logins that they have replaced. If one of its futures is
/// dropped, the work stops there, and recovery continues it after the lease.
#[derive(Clone)]
pub struct Rotation {
    pub(super) stores: OperationContext,
    engine: Engine,
    pub(super) login: AppLogin,
    saga: Arc<Saga<RotateContext>>,
}

impl Rotation {
    /// Creates the driver of rotations over these stores. It gives `login`'s properties to every new login.
    pub(crate) fn new(stores: OperationContext, engine: Engine, login: AppLogin) -> Self {
        let saga = Arc::new(saga::define(stores.clone(), login));
        Self { stores, engine, login, saga }
    }
    /// What every login of the application has.
    pub(crate) fn login(&self) -> AppLogin {
        self.login
    }
    /// The rotation saga, for a [`Recoverer`](crate::saga::Recoverer).
    pub(crate) fn saga(&self) -> Arc<dyn AnySaga> {
        self.saga.clone()
    }

    /// When the operation began that gave the tenant its current login (its last rotation, or its provisioning), by the
    /// landlord's clock. `None` if the login was made in another way.
    pub(crate) async fn login_created_at(&self, tenant: TenantId) -> Result<Option<OffsetDateTime>, StoreError> {
        let history = self.stores.journal.history(&Subject::Tenant(tenant)).await?;
        let has_set_login = |r: &&Record| r.outputs.contains_key(FLIP) || r.outputs.contains_key("tenant.publish");
        Ok(history.iter().rev().find(has_set_login).map(|r| r.begun_at))
    }
}

fn read_output<T: serde::de::DeserializeOwned>(record: &Record, step: &str) -> Result<T, StoreError> {
    let value = record.outputs.get(step).cloned().unwrap_or_default();
    serde_json::from_value(value).map_err(StoreError::corrupt)
}
