//! Rotation: a tenant gets a new login, all nodes go over to it, and the old one is dropped.
//!
//! Pending secret → new login → probe → flip, by one compare-and-set → the old login drains → NOLOGIN → drop. The flip is
//! the point of no return. A login that cannot be dropped does not fail a rotation: it waits as `Retiring`, with the
//! reason, and is tried again until it is gone.
//!
//! Nobody has to tell that his node has gone over: the server knows. As long as the old login has sessions, it stays good,
//! until the grace is over; whoever comes later with it is refused with 28000, and fetches the new one.
use crate::cluster::{OperationContext, ended};
use crate::directory::{AppAccess, Generation};
use crate::error::{ChangeError, StoreError};
use crate::operation::{Lane, OperationId, Subject};
use crate::saga::{AnySaga, Engine, Observer, Outcome};
use crate::store::journal::{Begun, Intent, Record};
use crate::tenant::{Tenant, TenantId, TenantRef, TenantStatus};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use time::OffsetDateTime;
use uuid::Uuid;

mod context;
mod login_change;
mod retire;
mod saga;
mod steps;
pub(crate) use context::RotateContext;
pub use retire::RetireReport;
use saga::RotateSaga;
pub(crate) use steps::{FLIP, Rotate};

/// The stored name of the saga.
const KIND: &str = "rotate";
/// For how long the old login stays good for whoever still uses it, if nobody says otherwise.
pub(crate) const GRACE: Duration = Duration::from_secs(30);

/// What the application's logins are: the same for all of them.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AppLogin {
    /// What they may do.
    pub access: AppAccess,
    /// Most sessions of each, of all nodes together; -1: any number. A rotation gives it to the old login too.
    pub connection_limit: i32,
}
impl AppLogin {
    /// As these say.
    pub fn new(access: AppAccess, connection_limit: i32) -> Self {
        Self { access, connection_limit }
    }
}

/// What is stored of a call.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) tenant: TenantId,
    pub(crate) grace_ms: u64,
}

/// What a rotation did.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rotated {
    /// The tenant.
    pub tenant: Tenant,
    /// Which login it has now.
    pub generation: Generation,
    /// Why the old login is still there, if it is: it is retried until it is gone, and harms nobody meanwhile.
    pub retiring: Option<String>,
}

/// Rotates the logins of tenants. Dropping one of its futures is like the death of the process: nothing of it runs on.
#[derive(Clone)]
pub struct Rotation {
    stores: OperationContext,
    engine: Engine,
    login: AppLogin,
    saga: Arc<RotateSaga>,
}

impl Rotation {
    /// Over these stores.
    pub fn new(stores: OperationContext, engine: Engine, login: AppLogin) -> Self {
        let saga = Arc::new(RotateSaga::new(stores.clone(), login));
        Self { stores, engine, login, saga }
    }
    /// The saga, for a [`Recoverer`](crate::saga::Recoverer).
    pub fn saga(&self) -> Arc<dyn AnySaga> {
        self.saga.clone()
    }

    /// Begins and drives it to its end. A zero `grace` ends at once whatever uses the old login: for one that is known to
    /// others.
    ///
    /// # Cancel safety
    /// Before the intent's commit nothing has happened; after it recovery goes on.
    pub async fn rotate(
        &self, tenant: TenantRef<'_>, grace: Duration, observer: &Observer,
    ) -> Result<Rotated, ChangeError> {
        match self.begin_and_preconnect(tenant, grace, None, None).await? {
            Begun::New(record) => self.rotated(self.engine.drive(&*self.saga, *record, true, observer).await?).await,
            Begun::Joined(record) => self.rotated(Outcome::of(self.stores.wait(record.id).await?)).await,
            Begun::KeyReused(operation) => Err(ChangeError::KeyReused { operation }),
            Begun::Busy(operation) => Err(ChangeError::Busy { operation }),
        }
    }

    /// Commits the intent, under which the caller then holds the operation, or finds the one that has its key.
    pub async fn begin(
        &self, tenant: TenantRef<'_>, grace: Duration, key: Option<String>, reason: Option<String>,
    ) -> Result<Begun, ChangeError> {
        match self.intent(tenant, grace, key, reason).await? {
            (_, Some(begun)) => Ok(begun),
            (intent, None) => self.stores.begin(&intent).await,
        }
    }

    /// The same for a caller who drives it at once.
    pub(crate) async fn begin_and_preconnect(
        &self, tenant: TenantRef<'_>, grace: Duration, key: Option<String>, reason: Option<String>,
    ) -> Result<Begun, ChangeError> {
        match self.intent(tenant, grace, key, reason).await? {
            (_, Some(begun)) => Ok(begun),
            (intent, None) => self.stores.begin_and_preconnect(&intent).await,
        }
    }

    /// What is to be begun, or the operation that has its key.
    async fn intent(
        &self, tenant: TenantRef<'_>, grace: Duration, key: Option<String>, reason: Option<String>,
    ) -> Result<(Intent, Option<Begun>), ChangeError> {
        let found = self.stores.registry.find(tenant).await?.ok_or(ChangeError::Unknown)?;
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let intent = Intent {
            key,
            reason,
            request: serde_json::to_value(Request { tenant: found.id(), grace_ms }).map_err(StoreError::corrupt)?,
            intended: Engine::first_intent(&*self.saga),
            total: self.saga.len(),
            worker: Uuid::now_v7().to_string(),
            lease: self.engine.settings().lease,
            ..Intent::new(OperationId::new(), KIND, Lane::Change, Subject::Tenant(found.id()))
        };
        match (self.stores.known(&intent).await?, found.status()) {
            (Some(begun), _) => Ok((intent, Some(begun))),
            (None, TenantStatus::Active) => Ok((intent, None)),
            (None, found) => Err(ChangeError::Status { found }),
        }
    }

    /// Closes what was opened for operations that nobody drives.
    pub(crate) fn close(&self) {
        self.stores.drop_preconnected();
    }

    /// What an operation's end means to its caller.
    pub async fn rotated(&self, outcome: Outcome) -> Result<Rotated, ChangeError> {
        let record = ended(outcome)?;
        let id: TenantId = record.subject.tenant().ok_or(ChangeError::Unknown)?;
        let tenant = self.stores.registry.find(id.into()).await?.ok_or(ChangeError::Unknown)?;
        let change: login_change::LoginChange = output(&record, login_change::SEAL)?;
        let retired: Option<steps::Retired> = output(&record, steps::RETIRE)?;
        Ok(Rotated { tenant, generation: change.generation, retiring: retired.and_then(|r| r.left) })
    }

    /// Since when the tenant has its login: the end of its last rotation, or of its provisioning, by the landlord's clock.
    /// `None` for one that came by another way.
    pub async fn since(&self, tenant: TenantId) -> Result<Option<OffsetDateTime>, StoreError> {
        let history = self.stores.journal.history(&Subject::Tenant(tenant)).await?;
        let made = |r: &&Record| r.outputs.contains_key(FLIP) || r.outputs.contains_key("tenant.publish");
        Ok(history.iter().rev().find(made).map(|r| r.begun_at))
    }
}

fn output<T: serde::de::DeserializeOwned>(record: &Record, step: &str) -> Result<T, StoreError> {
    let value = record.outputs.get(step).cloned().unwrap_or_default();
    serde_json::from_value(value).map_err(StoreError::corrupt)
}

impl std::fmt::Debug for Rotation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rotation(..)")
    }
}
