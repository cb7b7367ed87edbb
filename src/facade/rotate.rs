//! Rotation as a host calls it.
use super::batch::BatchVerb;
use super::verbs::{CallVerb, sealed};
use super::{Batch, Call, Tenantry};
use crate::error::{ChangeError, StoreError};
use crate::operation::OperationId;
use crate::operations::rekey::Rekeyed;
use crate::operations::rotate::{GRACE, RetireReport, Rotated};
use crate::operations::servers::Server;
use crate::saga::Outcome;
use crate::store::journal::Begun;
use crate::store::registry::Retirement;
use crate::tenant::{Tenant, TenantRef, TenantStatus};
use async_trait::async_trait;
use std::time::Duration;

/// [`Tenantry::rotate`].
pub struct Rotate {
    tenant: TenantRef<'static>,
    grace: Duration,
}
impl sealed::Sealed for Rotate {}
#[async_trait]
impl CallVerb for Rotate {
    type Answer = Rotated;
    type Error = ChangeError;
    async fn begin(self, on: &Tenantry, key: Option<String>, reason: Option<String>) -> Result<Begun, ChangeError> {
        on.inner.rotation.begin_and_preconnect(self.tenant, self.grace, key, reason).await
    }
    async fn answer(on: &Tenantry, outcome: Outcome) -> Result<Rotated, ChangeError> {
        on.inner.rotation.rotated(outcome).await
    }
    fn busy(operation: OperationId) -> ChangeError {
        ChangeError::Busy { operation }
    }
    fn closed() -> ChangeError {
        ChangeError::Closed
    }
}

/// [`Tenantry::rotate_server`].
pub struct RotateServer(String);
impl sealed::Sealed for RotateServer {}
#[async_trait]
impl CallVerb for RotateServer {
    type Answer = Server;
    type Error = ChangeError;
    async fn begin(self, on: &Tenantry, key: Option<String>, reason: Option<String>) -> Result<Begun, ChangeError> {
        on.inner.servers.begin_rotation(&self.0, key, reason).await
    }
    async fn answer(on: &Tenantry, outcome: Outcome) -> Result<Server, ChangeError> {
        on.inner.servers.rotated(outcome).await
    }
    fn busy(operation: OperationId) -> ChangeError {
        ChangeError::Busy { operation }
    }
    fn closed() -> ChangeError {
        ChangeError::Closed
    }
}

/// [`Tenantry::rekey`].
pub struct RekeyVault(());
impl sealed::Sealed for RekeyVault {}
#[async_trait]
impl CallVerb for RekeyVault {
    type Answer = Rekeyed;
    type Error = ChangeError;
    async fn begin(self, on: &Tenantry, key: Option<String>, reason: Option<String>) -> Result<Begun, ChangeError> {
        on.inner.rekey.begin(key, reason).await
    }
    async fn answer(on: &Tenantry, outcome: Outcome) -> Result<Rekeyed, ChangeError> {
        on.inner.rekey.rekeyed(outcome).await
    }
    fn busy(operation: OperationId) -> ChangeError {
        ChangeError::Busy { operation }
    }
    fn closed() -> ChangeError {
        ChangeError::Closed
    }
}

impl Call<Rotate> {
    /// For how long the old login stays good for whoever still uses it; 30 s by default. It goes as soon as nobody does.
    /// Zero ends its sessions at once, with whatever they are doing: for a login that is known to others.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.verb.grace = grace;
        self
    }
}

/// Which logins a batch concerns, and how they go.
#[derive(Clone, Debug)]
pub struct Rotations {
    older_than: Option<Duration>,
    grace: Duration,
}
impl Default for Rotations {
    fn default() -> Self {
        Self { older_than: None, grace: GRACE }
    }
}

#[async_trait]
impl BatchVerb for Rotate {
    type Options = Rotations;
    fn concerns(tenant: &Tenant) -> bool {
        tenant.status() == TenantStatus::Active
    }
    async fn is_due(on: &Tenantry, tenant: &Tenant, options: &Rotations) -> Result<bool, ChangeError> {
        let Some(age) = options.older_than else { return Ok(true) };
        let since = on.inner.rotation.since(tenant.id()).await?;
        let now = on.inner.stores.journal.now().await?;
        Ok(since.is_none_or(|since| now - since >= age))
    }
    fn of(tenant: &Tenant, options: &Rotations) -> Self {
        Self { tenant: tenant.into(), grace: options.grace }
    }
}

impl Batch<Rotate> {
    /// Only logins that were made at least so long ago. With it the batch may be cut short and called again: whoever was
    /// rotated meanwhile is left alone.
    pub fn older_than(mut self, age: Duration) -> Self {
        self.options.older_than = Some(age);
        self
    }
    /// As for [`Call::grace`].
    pub fn grace(mut self, grace: Duration) -> Self {
        self.options.grace = grace;
        self
    }
}

impl Tenantry {
    /// A new login for the tenant; all nodes go over to it, and the old one is dropped. No query fails for it, unless it
    /// outlasts the [grace](Call::grace). Done also when the old login cannot be dropped yet: it then waits as
    /// [`retiring`](Self::retiring).
    pub fn rotate<'a>(&self, tenant: impl Into<TenantRef<'a>>) -> Call<Rotate> {
        Call::new(self, Rotate { tenant: tenant.into().into_owned(), grace: GRACE })
    }
    /// Every active tenant: [`rotate`](Self::rotate)d. For the host's own schedule, with
    /// [`older_than`](Batch::older_than).
    pub fn rotate_all(&self) -> Batch<Rotate> {
        Batch::new(self)
    }
    /// New passwords for the provisioner's two logins of a server: the idle one first, then, when all nodes use that, the
    /// other one. Operations that are under way go on.
    pub fn rotate_server(&self, name: impl Into<String>) -> Call<RotateServer> {
        Call::new(self, RotateServer(name.into()))
    }
    /// Wraps every secret's data key anew, by the primary key of this program: see [`rekey`](crate::operations::rekey).
    pub fn rekey(&self) -> Call<RekeyVault> {
        Call::new(self, RekeyVault(()))
    }
    /// Logins that were replaced and could not be dropped yet, longest waiting first, at most `limit`: each with the
    /// reason. [`run`](Self::run) tries them again and again.
    pub async fn retiring(&self, limit: u32) -> Result<Vec<Retirement>, StoreError> {
        self.inner.rotation.retiring(limit).await
    }
    /// One pass over the logins whose next try is due; [`run`](Self::run) does this for ever.
    pub async fn retire_due(&self) -> Result<RetireReport, StoreError> {
        self.inner.rotation.retire_due().await
    }
}
