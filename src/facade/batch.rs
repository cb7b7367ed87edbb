//! One verb over many tenants.
use super::verbs::{CallVerb, Migrate, Purge};
use super::{Call, Tenantry};
use crate::error::{ChangeError, StoreError};
use crate::operations::migrate::MigrationState;
use crate::store::registry::TenantRegistryExt;
use crate::tenant::{Tenant, TenantStatus};
use async_trait::async_trait;
use futures_core::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, future};
use std::{future::IntoFuture, sync::Arc};

/// A verb of [`Batch`]. Sealed; hosts never name it.
#[async_trait]
pub trait BatchVerb: CallVerb<Error = ChangeError> {
    #[doc(hidden)]
    type Options: Default + Clone + Send + Sync + 'static;
    #[doc(hidden)]
    fn concerns(tenant: &Tenant) -> bool;
    #[doc(hidden)]
    async fn is_due(on: &Tenantry, tenant: &Tenant, options: &Self::Options) -> Result<bool, ChangeError>;
    #[doc(hidden)]
    fn of(tenant: &Tenant, options: &Self::Options) -> Self;
}

#[async_trait]
impl BatchVerb for Migrate {
    type Options = ();
    fn concerns(tenant: &Tenant) -> bool {
        tenant.status() == TenantStatus::Active
    }
    async fn is_due(on: &Tenantry, tenant: &Tenant, (): &()) -> Result<bool, ChangeError> {
        Ok(on.migration_status(tenant).await?.state != MigrationState::AtHead)
    }
    fn of(tenant: &Tenant, (): &()) -> Self {
        Self::new(tenant.into())
    }
}

#[async_trait]
impl BatchVerb for Purge {
    type Options = ();
    fn concerns(tenant: &Tenant) -> bool {
        tenant.status() == TenantStatus::Archived && tenant.kept_until().is_some()
    }
    async fn is_due(on: &Tenantry, tenant: &Tenant, (): &()) -> Result<bool, ChangeError> {
        let now = on.inner.stores.journal.now().await?;
        Ok(tenant.kept_until().is_some_and(|until| until <= now))
    }
    fn of(tenant: &Tenant, (): &()) -> Self {
        Self::new(tenant.into())
    }
}

type OnResult<V> = Arc<dyn Fn(&Tenant, Result<&<V as CallVerb>::Answer, &ChangeError>) + Send + Sync>;

/// One verb over many tenants: bounded, resumable (who is done is not due any more), one failure stops no other.
///
/// # Cancel safety
/// Dropping the future begins nothing new; operations that have begun go on in tasks of the facade.
#[must_use = "a batch does nothing until it is awaited"]
pub struct Batch<V: BatchVerb> {
    tenantry: Tenantry,
    concurrency: usize,
    reason: Option<String>,
    on_result: OnResult<V>,
    pub(super) options: V::Options,
}

/// What a batch did.
#[derive(Debug)]
#[non_exhaustive]
pub struct BatchReport<A> {
    /// Who was changed, and how; in no order.
    pub done: Vec<(Tenant, A)>,
    /// How many were looked at and were not due.
    pub unchanged: u64,
    /// Who was due, or could not be looked at, and why it did not happen.
    pub failed: Vec<(Tenant, ChangeError)>,
}

enum Outcome<A> {
    Done(A),
    Unchanged,
    Failed(ChangeError),
}

impl<V: BatchVerb> Batch<V> {
    pub(super) fn new(tenantry: &Tenantry) -> Self {
        let on_result: OnResult<V> = Arc::new(|_, _| {});
        let options = V::Options::default();
        Self { tenantry: tenantry.clone(), concurrency: 4, reason: None, on_result, options }
    }
    /// Tenants at once; 4 by default, at least 1.
    pub fn concurrency(mut self, n: usize) -> Self {
        self.concurrency = n.max(1);
        self
    }
    /// Who and why, for the history of each operation; no secret.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
    /// Progress: called with each tenant that was due, as it ends. It must not block.
    pub fn on_result(
        mut self, see: impl Fn(&Tenant, Result<&V::Answer, &ChangeError>) + Send + Sync + 'static,
    ) -> Self {
        self.on_result = Arc::new(see);
        self
    }

    async fn run(self) -> Result<BatchReport<V::Answer>, StoreError> {
        let registry = self.tenantry.registry();
        let concerned = registry.all().try_filter(|tenant| future::ready(V::concerns(tenant)));
        let outcomes = concerned.map_ok(|tenant| async {
            let outcome = self.one(&tenant).await;
            Ok((tenant, outcome))
        });
        let mut outcomes = outcomes.try_buffer_unordered(self.concurrency);
        let mut report = BatchReport { done: vec![], unchanged: 0, failed: vec![] };
        while let Some((tenant, outcome)) = outcomes.next().await.transpose()? {
            match outcome {
                Outcome::Unchanged => report.unchanged += 1,
                Outcome::Done(answer) => {
                    (self.on_result)(&tenant, Ok(&answer));
                    report.done.push((tenant, answer));
                }
                Outcome::Failed(error) => {
                    (self.on_result)(&tenant, Err(&error));
                    report.failed.push((tenant, error));
                }
            }
        }
        Ok(report)
    }

    async fn one(&self, tenant: &Tenant) -> Outcome<V::Answer> {
        let mut busy_before = false;
        loop {
            match self.try_one(tenant).await {
                // Another node is at it, likely with the same batch: what it leaves is looked at once more.
                Err(ChangeError::Busy { operation }) if !busy_before => {
                    busy_before = true;
                    if let Err(error) = self.tenantry.inner.stores.wait(operation).await {
                        return Outcome::Failed(error.into());
                    }
                }
                Ok(Some(answer)) => return Outcome::Done(answer),
                Ok(None) => return Outcome::Unchanged,
                Err(error) => return Outcome::Failed(error),
            }
        }
    }

    async fn try_one(&self, tenant: &Tenant) -> Result<Option<V::Answer>, ChangeError> {
        if !V::is_due(&self.tenantry, tenant, &self.options).await? {
            return Ok(None);
        }
        let call = Call::new(&self.tenantry, V::of(tenant, &self.options));
        let call = match &self.reason {
            Some(reason) => call.reason(reason.clone()),
            None => call,
        };
        call.await.map(Some)
    }
}

impl<V: BatchVerb> IntoFuture for Batch<V> {
    type Output = Result<BatchReport<V::Answer>, StoreError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
