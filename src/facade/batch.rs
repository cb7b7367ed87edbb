//! Batches: one operation for every tenant that needs it.
//!
//! `Tenantry::migrate_all`, `purge_due` and `rotate_all` return a [`Batch`], which the application awaits.
//!
//! Invariants:
//! - At most `concurrency` operations of a batch run at once, and the failure of one tenant does not stop the others.
//! - The landlord decides which tenants are due, so a batch needs no state of its own and can be interrupted and
//!   repeated.
use super::{Call, Tenantry};
use crate::error::{ChangeError, StoreError};
use crate::operations::lifecycle::{Lifecycle, Purge};
use crate::operations::verb::CallVerb;
use crate::store::registry::TenantRegistry;
use crate::tenant::{Tenant, TenantStatus};
use async_trait::async_trait;
use futures_core::future::BoxFuture;
use futures_util::StreamExt;
use std::{future::IntoFuture, sync::Arc};

/// A request that a [`Batch`] can make for each tenant. Sealed. Application code does not need to name this trait.
#[async_trait]
pub trait BatchVerb: CallVerb<Error = ChangeError> {
    #[doc(hidden)]
    type Options: Default + Clone + Send + Sync + 'static;
    #[doc(hidden)]
    fn driver(on: &Tenantry) -> &Self::Driver;
    #[doc(hidden)]
    fn is_candidate(tenant: &Tenant, options: &Self::Options) -> bool;
    #[doc(hidden)]
    async fn is_due(on: &Tenantry, tenant: &Tenant, options: &Self::Options) -> Result<bool, ChangeError>;
    #[doc(hidden)]
    fn for_tenant(tenant: &Tenant, options: &Self::Options) -> Self;
    /// Whether an operation that succeeded has changed anything. If not, the tenant counts as unchanged.
    #[doc(hidden)]
    fn has_changed(_: &Self::Answer) -> bool {
        true
    }
    /// Runs once after all operations, before the report is returned.
    #[doc(hidden)]
    async fn finish(_: &Tenantry, _: &Self::Options, _: &mut Vec<(Tenant, Self::Answer)>) {}
}

#[async_trait]
impl BatchVerb for Purge {
    type Options = ();
    fn driver(on: &Tenantry) -> &Lifecycle {
        &on.inner.lifecycle
    }
    fn is_candidate(tenant: &Tenant, (): &()) -> bool {
        tenant.status() == TenantStatus::Archived && tenant.kept_until().is_some()
    }
    async fn is_due(on: &Tenantry, tenant: &Tenant, (): &()) -> Result<bool, ChangeError> {
        let now = on.inner.stores.journal.now().await?;
        Ok(tenant.kept_until().is_some_and(|until| until <= now))
    }
    fn for_tenant(tenant: &Tenant, (): &()) -> Self {
        Self::new(tenant.into())
    }
}

/// The callback of [`Batch::on_result`].
type OnResult<V> = Arc<dyn Fn(&Tenant, Result<&<V as CallVerb>::Answer, &ChangeError>) + Send + Sync>;

/// One operation for every tenant that is due. It runs a limited number of operations at once, and one failure does not
/// stop the others. A batch can be interrupted and repeated: a tenant whose operation is done is not due any more.
///
/// # Cancel safety
/// After the future is dropped no operation begins. Operations that have begun continue in tasks of the facade.
#[must_use = "a batch does nothing until it is awaited"]
pub struct Batch<V: BatchVerb> {
    tenantry: Tenantry,
    concurrency: usize,
    reason: Option<String>,
    on_result: OnResult<V>,
    pub(super) options: V::Options,
}

/// The tenants for which a [`Batch`] succeeded or failed, and how many needed nothing or were left alone.
#[derive(Debug)]
#[non_exhaustive]
pub struct BatchReport<A> {
    /// Tenants whose operation succeeded, each with its answer, in no particular order.
    pub done: Vec<(Tenant, A)>,
    /// Number of tenants that were checked and were not due.
    pub unchanged: u64,
    /// Number of tenants that a newer program has migrated: their databases have migrations that this program does not
    /// have. They were left as they are. 0 for other batches than [`migrate_all`](Tenantry::migrate_all).
    pub ahead: u64,
    /// Number of suspended tenants that were left alone because of their status.
    /// [`Batch::include_suspended`] includes them in a migration.
    pub suspended: u64,
    /// Number of archived tenants that were left alone because of their status.
    pub archived: u64,
    /// Tenants whose check or operation failed, each with its error.
    pub failed: Vec<(Tenant, ChangeError)>,
    /// Tenants whose row in the registry cannot be parsed. Nothing was done for them.
    pub unreadable: Vec<StoreError>,
}

impl<A> Default for BatchReport<A> {
    fn default() -> Self {
        Self { done: vec![], unchanged: 0, ahead: 0, suspended: 0, archived: 0, failed: vec![], unreadable: vec![] }
    }
}

enum Outcome<A> {
    Done(A),
    Unchanged,
    Ahead,
    /// The tenant's status excludes it from the batch.
    LeftAlone,
    Failed(ChangeError),
}

impl<V: BatchVerb> Batch<V> {
    pub(super) fn new(tenantry: &Tenantry) -> Self {
        let on_result: OnResult<V> = Arc::new(|_, _| {});
        let options = V::Options::default();
        Self { tenantry: tenantry.clone(), concurrency: 4, reason: None, on_result, options }
    }
    /// Maximum number of tenants worked on at once; 4 by default. Zero counts as 1.
    pub fn concurrency(mut self, n: usize) -> Self {
        self.concurrency = n.max(1);
        self
    }
    /// Reason for the batch and the person or job that started it. It is stored in the history of each operation, so it
    /// must not contain a secret.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
    /// Called with each tenant that was due, or whose check failed, as soon as its result is there. It must not block.
    pub fn on_result(
        mut self, callback: impl Fn(&Tenant, Result<&V::Answer, &ChangeError>) + Send + Sync + 'static,
    ) -> Self {
        self.on_result = Arc::new(callback);
        self
    }

    async fn run(self) -> Result<BatchReport<V::Answer>, StoreError> {
        let registry = self.tenantry.registry();
        let outcomes = registry.all().map(|tenant| async {
            let tenant = tenant?;
            let outcome = match V::is_candidate(&tenant, &self.options) {
                true => self.run_one(&tenant).await,
                false => Outcome::LeftAlone,
            };
            Ok((tenant, outcome))
        });
        let mut outcomes = outcomes.buffer_unordered(self.concurrency);
        let mut report = BatchReport::default();
        while let Some(outcome) = outcomes.next().await {
            let (tenant, outcome) = match outcome {
                Ok(outcome) => outcome,
                // One row of the registry. The stream continues with the others.
                Err(error @ StoreError::Corrupt(_)) => {
                    report.unreadable.push(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            match outcome {
                Outcome::Unchanged => report.unchanged += 1,
                Outcome::Ahead => report.ahead += 1,
                Outcome::LeftAlone => match tenant.status() {
                    TenantStatus::Suspended => report.suspended += 1,
                    TenantStatus::Archived => report.archived += 1,
                    _ => {}
                },
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
        V::finish(&self.tenantry, &self.options, &mut report.done).await;
        Ok(report)
    }

    async fn run_one(&self, tenant: &Tenant) -> Outcome<V::Answer> {
        let mut busy_before = false;
        loop {
            match self.run_if_due(tenant).await {
                // Another node works on this tenant, probably in the same batch. Wait for its operation and check once
                // more whether the tenant is still due, so that two batches do not report each other's work as
                // failures.
                Err(ChangeError::Busy { operation, .. }) if !busy_before => {
                    busy_before = true;
                    if let Err(error) = self.tenantry.inner.stores.wait(operation).await {
                        return Outcome::Failed(error.into());
                    }
                }
                Ok(Some(answer)) if V::has_changed(&answer) => return Outcome::Done(answer),
                Ok(_) => return Outcome::Unchanged,
                Err(ChangeError::Ahead { .. }) => return Outcome::Ahead,
                Err(error) => return Outcome::Failed(error),
            }
        }
    }

    async fn run_if_due(&self, tenant: &Tenant) -> Result<Option<V::Answer>, ChangeError> {
        if !V::is_due(&self.tenantry, tenant, &self.options).await? {
            return Ok(None);
        }
        let call = Call::new(&self.tenantry, V::driver(&self.tenantry), V::for_tenant(tenant, &self.options));
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
