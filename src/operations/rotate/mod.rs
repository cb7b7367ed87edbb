//! Rotation: gives a tenant a new login, moves all nodes to it and drops the old one.
//!
//! The steps are: store the new password, create the new login, probe it, flip the directory entry by one
//! compare-and-set, then let the old login drain, set NOLOGIN and drop it. The flip is the pivot step. An old login
//! that cannot be dropped does not fail the rotation: it stays in the registry as `Retiring`, with the reason, and
//! `Rotation::retire_due` retries until it is dropped.
//!
//! Nodes do not report that they use the new login. The worker asks PostgreSQL whether the old login still has
//! sessions, and lets it stay valid until they have ended or the grace period is over. After that PostgreSQL refuses
//! the old login (SQLSTATE 28000), and the resolver of the refused node reads the new one.
use crate::cluster::{OperationContext, require_done};
use crate::directory::{AppAccess, Generation};
use crate::error::{ChangeError, StoreError};
use crate::operation::{Lane, OperationId, Subject};
use crate::saga::{AnySaga, Engine, Outcome};
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
/// How long the old login stays valid while it has sessions, if the caller sets no grace period.
pub(crate) const GRACE: Duration = Duration::from_secs(30);

/// Properties that every application login of this installation has.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub(crate) struct AppLogin {
    /// Rights of the application's logins in their tenant's database.
    pub access: AppAccess,
    /// CONNECTION LIMIT of each login: most sessions over all nodes; -1 for no limit. A rotation also sets it on the
    /// old login.
    pub connection_limit: i32,
}
impl AppLogin {
    /// Logins with these rights and this CONNECTION LIMIT.
    pub(crate) fn new(access: AppAccess, connection_limit: i32) -> Self {
        Self { access, connection_limit }
    }
}

/// The request as the journal stores it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) tenant: TenantId,
    pub(crate) grace_ms: u64,
}

/// A tenant after a rotation, with its new login.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rotated {
    /// The tenant, after the rotation.
    pub tenant: Tenant,
    /// Generation of the login that the tenant has now.
    pub generation: Generation,
    /// Why the old login could not be dropped; `None` if it was dropped. The drop is retried until it succeeds. After a
    /// rotation with a zero grace period the old login can no longer enter the tenant's database in the meantime.
    pub retiring: Option<String>,
}

/// Begins and drives rotations of tenants' logins. If one of its futures is dropped, the work stops there, and recovery
/// continues it after the lease.
#[derive(Clone)]
pub(crate) struct Rotation {
    stores: OperationContext,
    engine: Engine,
    login: AppLogin,
    saga: Arc<RotateSaga>,
}

impl Rotation {
    /// Creates the driver of rotations over these stores. It gives `login`'s properties to every new login.
    pub(crate) fn new(stores: OperationContext, engine: Engine, login: AppLogin) -> Self {
        let saga = Arc::new(RotateSaga::new(stores.clone(), login));
        Self { stores, engine, login, saga }
    }
    /// The rotation saga, for a [`Recoverer`](crate::saga::Recoverer).
    pub(crate) fn saga(&self) -> Arc<dyn AnySaga> {
        self.saga.clone()
    }

    /// As [`begin`](Self::begin), and opens the worker's session while the intent is committed. For a caller that
    /// drives the operation at once.
    pub(crate) async fn begin_and_preconnect(
        &self, tenant: TenantRef<'_>, grace: Duration, key: Option<String>, reason: Option<String>,
    ) -> Result<Begun, ChangeError> {
        match self.intent(tenant, grace, key, reason).await? {
            (_, Some(begun)) => Ok(begun),
            (intent, None) => self.stores.begin_and_preconnect(&intent).await,
        }
    }

    /// The intent to commit, and the operation that already has its key, if there is one.
    async fn intent(
        &self, tenant: TenantRef<'_>, grace: Duration, key: Option<String>, reason: Option<String>,
    ) -> Result<(Intent, Option<Begun>), ChangeError> {
        let found = self.stores.registry.find(tenant).await?.ok_or(ChangeError::Unknown)?;
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let intent = Intent {
            key,
            reason,
            request: serde_json::to_value(Request { tenant: found.id(), grace_ms }).map_err(StoreError::corrupt)?,
            intended: Engine::first_intent_steps(&*self.saga),
            total: self.saga.len(),
            worker: Uuid::now_v7().to_string(),
            lease: self.engine.settings().lease,
            ..Intent::new(OperationId::new(), KIND, Lane::Change, Subject::Tenant(found.id()))
        };
        match (self.stores.find_joined(&intent).await?, found.status()) {
            (Some(begun), _) => Ok((intent, Some(begun))),
            (None, TenantStatus::Active) => Ok((intent, None)),
            (None, found) => Err(ChangeError::Status { found }),
        }
    }

    /// Closes the sessions that [`begin_and_preconnect`](Self::begin_and_preconnect) opened for operations that were
    /// not driven.
    pub(crate) fn close(&self) {
        self.stores.drop_preconnected();
    }

    /// Converts the outcome of an operation to the result that the caller gets.
    pub(crate) async fn rotated(&self, outcome: Outcome) -> Result<Rotated, ChangeError> {
        let record = require_done(outcome)?;
        let id: TenantId = record.subject.tenant().ok_or(ChangeError::Unknown)?;
        let tenant = self.stores.registry.find(id.into()).await?.ok_or(ChangeError::Unknown)?;
        let change: login_change::LoginChange = read_output(&record, login_change::SEAL)?;
        let retired: Option<steps::RetireOutput> = read_output(&record, steps::RETIRE)?;
        Ok(Rotated { tenant, generation: change.generation, retiring: retired.and_then(|r| r.left) })
    }

    /// When the operation began that gave the tenant its current login (its last rotation, or its provisioning), by the
    /// landlord's clock. `None` if the login was made in another way.
    pub(crate) async fn since(&self, tenant: TenantId) -> Result<Option<OffsetDateTime>, StoreError> {
        let history = self.stores.journal.history(&Subject::Tenant(tenant)).await?;
        let has_set_login = |r: &&Record| r.outputs.contains_key(FLIP) || r.outputs.contains_key("tenant.publish");
        Ok(history.iter().rev().find(has_set_login).map(|r| r.begun_at))
    }
}

fn read_output<T: serde::de::DeserializeOwned>(record: &Record, step: &str) -> Result<T, StoreError> {
    let value = record.outputs.get(step).cloned().unwrap_or_default();
    serde_json::from_value(value).map_err(StoreError::corrupt)
}

impl std::fmt::Debug for Rotation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rotation(..)")
    }
}
