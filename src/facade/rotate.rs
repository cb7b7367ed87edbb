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
use crate::error::{ChangeError, Rows, StoreError};
use crate::operations::rekey::RekeyVault;
use crate::operations::rotate::{GRACE, RetireReport, Rotate, Rotated, Rotation};
use crate::operations::servers::RotateServer;
use crate::store::registry::Retirement;
use crate::tenant::{Tenant, TenantId, TenantRef, TenantStatus};
use async_trait::async_trait;
use std::{collections::HashMap, time::Duration};
use tokio::time::{Instant, sleep};

impl Call<Rotate> {
    /// How long sessions of the old login may continue; 30 s by default. The login is dropped as soon as it has no
    /// session. After this time its remaining sessions are ended. Zero ends them at once and aborts their statements:
    /// use it when the password has leaked.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.verb.grace = grace;
        self
    }
}

/// How long a batch waits, after the grace period, until each old login that it has left was tried to be dropped.
const FINISH_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two looks at the old logins that a batch waits for.
const FINISH_POLL: Duration = Duration::from_millis(250);

/// Drops the old logins that are due, and updates what `done` says about them. Returns whether one has not been due yet.
async fn retire_and_read(on: &Tenantry, done: &mut [(Tenant, Rotated)]) -> Result<bool, StoreError> {
    on.retire_due().await?;
    let mut left: HashMap<TenantId, Vec<Retirement>> = HashMap::new();
    for retirement in on.retiring(u32::MAX).await? {
        left.entry(retirement.user.tenant).or_default().push(retirement);
    }
    let mut has_waiting = false;
    for (tenant, rotated) in done.iter_mut().filter(|(_, rotated)| rotated.retiring.is_some()) {
        let of_tenant = left.remove(&tenant.id()).unwrap_or_default();
        let is_older = |r: &Retirement| r.user.generation < rotated.generation && !r.user.is_temporary();
        let older = of_tenant.into_iter().filter(is_older);
        // The login that this rotation has replaced is the newest of them. Its operation has counted the first attempt.
        let replaced = older.max_by_key(|r| r.user.generation);
        has_waiting |= replaced.as_ref().is_some_and(|r| r.attempts < 2);
        rotated.retiring = replaced.map(|r| r.user.reason.or_else(|| rotated.retiring.take()).unwrap_or_default());
    }
    Ok(has_waiting)
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
    fn is_candidate(tenant: &Tenant, _: &Rotations) -> bool {
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
        rotate.defers_drop = true;
        rotate
    }
    /// Waits for the old logins that still had sessions. Their grace periods overlap, so one silent node delays the
    /// whole batch by about one grace period.
    async fn finish(on: &Tenantry, options: &Rotations, done: &mut Vec<(Tenant, Rotated)>) {
        let deadline = Instant::now() + options.grace + FINISH_LIMIT;
        while done.iter().any(|(_, rotated)| rotated.retiring.is_some()) {
            match retire_and_read(on, done).await {
                Ok(true) if Instant::now() < deadline && !on.is_closed() => sleep(FINISH_POLL).await,
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, "stopped waiting for the old logins of a batch; the retirement queue has them");
                    return;
                }
            }
        }
    }
}

impl Batch<Rotate> {
    /// Replaces only logins that were created at least `age` ago; by default all of them. With this limit a second call
    /// continues an interrupted batch, because it skips the tenants that were rotated in the meantime.
    pub fn older_than(mut self, age: Duration) -> Self {
        self.options.older_than = Some(age);
        self
    }
    /// How long sessions of each old login may continue: see [`Call::grace`]. A login that still has sessions a moment
    /// after its rotation does not delay the next tenants: the batch waits for all such logins together at its end.
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
    /// has waited longest is first. [`run`](Self::run) retries them. A [temporary login](Self::temporary_login) is in this
    /// list from its beginning, with the time of its end as `retry_at`.
    pub async fn retiring(&self, limit: u32) -> Result<Rows<Retirement>, StoreError> {
        self.inner.rotation.retiring(limit).await
    }
    /// Tries once to drop each replaced login whose next attempt is due. [`run`](Self::run) calls this every 5 s.
    pub async fn retire_due(&self) -> Result<RetireReport, StoreError> {
        self.inner.rotation.retire_due().await
    }
}
