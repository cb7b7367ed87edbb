//! The methods that replace credentials: a tenant's login, a server's provisioner passwords, and the vault's wrapping
//! key.
//!
//! `Tenantry::rotate`, `rotate_server` and `rekey` return a [`Call`]; `rotate_all` returns a [`Batch`].
//!
//! Invariants:
//! - All nodes can connect with the new login before the old one is dropped.
//! - A login that cannot be dropped yet is kept in the queue that [`Tenantry::retiring`] lists.
use super::batch::BatchVerb;
use super::{Batch, Call, Tenantry};
use crate::error::{ChangeError, StoreError};
use crate::operations::rekey::RekeyVault;
use crate::operations::rotate::{GRACE, RetireReport, Rotate, Rotation};
use crate::operations::servers::RotateServer;
use crate::store::registry::Retirement;
use crate::tenant::{Tenant, TenantRef, TenantStatus};
use async_trait::async_trait;
use std::time::Duration;

impl Call<Rotate> {
    /// How long sessions of the old login may continue; 30 s by default. The login is dropped as soon as it has no
    /// session. After this time its remaining sessions are ended. Zero ends them at once and aborts their statements:
    /// use it when the password has leaked.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.verb.grace = grace;
        self
    }
}

/// Options of a [`Batch`] of rotations: which logins it replaces, and how long their sessions may continue.
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
    fn driver(on: &Tenantry) -> &Rotation {
        &on.inner.rotation
    }
    fn is_candidate(tenant: &Tenant) -> bool {
        tenant.status() == TenantStatus::Active
    }
    async fn is_due(on: &Tenantry, tenant: &Tenant, options: &Rotations) -> Result<bool, ChangeError> {
        let Some(age) = options.older_than else { return Ok(true) };
        let since = on.inner.rotation.login_created_at(tenant.id()).await?;
        let now = on.inner.stores.journal.now().await?;
        Ok(since.is_none_or(|since| now - since >= age))
    }
    fn for_tenant(tenant: &Tenant, options: &Rotations) -> Self {
        let mut rotate = Self::new(tenant.into());
        rotate.grace = options.grace;
        rotate
    }
}

impl Batch<Rotate> {
    /// Replaces only logins that were created at least `age` ago; by default all of them. With this limit a second call
    /// continues an interrupted batch, because it skips the tenants that were rotated in the meantime.
    pub fn older_than(mut self, age: Duration) -> Self {
        self.options.older_than = Some(age);
        self
    }
    /// How long sessions of each old login may continue: see [`Call::grace`].
    pub fn grace(mut self, grace: Duration) -> Self {
        self.options.grace = grace;
        self
    }
}

impl Tenantry {
    /// Creates a new login for the tenant, switches all nodes to it, and drops the old login. No query fails because of
    /// the rotation, unless it runs for longer than the [grace period](Call::grace). The call also succeeds if the old
    /// login cannot be dropped yet: that login then waits in the [`retiring`](Self::retiring) queue.
    pub fn rotate<'a>(&self, tenant: impl Into<TenantRef<'a>>) -> Call<Rotate> {
        Call::new(self, &self.inner.rotation, Rotate::new(tenant.into()))
    }
    /// [`rotate`](Self::rotate)s the login of every active tenant. The application calls it on its own schedule,
    /// usually with [`older_than`](Batch::older_than).
    pub fn rotate_all(&self) -> Batch<Rotate> {
        Batch::new(self)
    }
    /// Sets new passwords for the two logins that the provisioner has on a server. It changes the idle login first.
    /// When all nodes use that login, it changes the other one. Running operations continue.
    pub fn rotate_server(&self, name: impl Into<String>) -> Call<RotateServer> {
        Call::new(self, &self.inner.servers, RotateServer::new(name.into()))
    }
    /// Wraps the data key of every secret again, with the primary key of this program's key provider: see
    /// [`rekey`](crate::operations::rekey).
    pub fn rekey(&self) -> Call<RekeyVault> {
        Call::new(self, &self.inner.rekey, RekeyVault::new())
    }
    /// Lists at most `limit` logins that were replaced and could not be dropped yet, each with the reason. The one that
    /// has waited longest is first. [`run`](Self::run) retries them.
    pub async fn retiring(&self, limit: u32) -> Result<Vec<Retirement>, StoreError> {
        self.inner.rotation.retiring(limit).await
    }
    /// Tries once to drop each replaced login whose next attempt is due. [`run`](Self::run) calls this every 5 s.
    pub async fn retire_due(&self) -> Result<RetireReport, StoreError> {
        self.inner.rotation.retire_due().await
    }
}
