//! [`CallVerb`]: what an operation that an application can call provides to the facade.
//!
//! Each module of `operations` implements it for its requests. The facade's `Call` begins the request, drives the new
//! operation in a task and turns its outcome into the caller's answer.
//!
//! Invariant: a request does nothing before `begin`, and `begin` is one commit in the landlord.
use crate::error::{ChangeError, StoreError};
use crate::operation::OperationId;
use crate::saga::{CallOptions, Outcome, Started};
use crate::tenant::{Tenant, TenantStatus};
use async_trait::async_trait;

/// A request for an operation, as the type parameter of `Call`. Application code need not name this trait.
#[async_trait]
pub trait CallVerb: Sized + Send + 'static {
    /// What begins such operations in this process: the stores, the engine and the saga.
    #[doc(hidden)]
    type Driver: Clone + Send + Sync + 'static;
    /// What the caller gets when the operation has succeeded.
    type Answer: Send + 'static;
    /// Error of the operation.
    type Error: std::error::Error + From<StoreError> + Send + 'static;
    /// Commits the intent of a new operation, or finds the operation that already has the key.
    #[doc(hidden)]
    async fn begin(self, driver: &Self::Driver, options: &CallOptions) -> Result<Started, Self::Error>;
    /// Converts the outcome of the operation to the caller's result.
    #[doc(hidden)]
    async fn answer(driver: &Self::Driver, outcome: Outcome) -> Result<Self::Answer, Self::Error>;
    /// Name of the step after which the caller may get an interim answer; `None` if it always waits for the end.
    #[doc(hidden)]
    const INTERIM: Option<&'static str> = None;
    /// The answer after the [`INTERIM`](Self::INTERIM) step; `None` if the caller has to wait for the end.
    #[doc(hidden)]
    async fn read_interim(_: &Self::Driver, _: OperationId) -> Result<Option<Self::Answer>, Self::Error> {
        Ok(None)
    }
}

/// Fails unless the tenant is active. For operations that need to connect to its database.
pub(crate) fn require_active(tenant: &Tenant) -> Result<(), ChangeError> {
    match tenant.status() {
        TenantStatus::Active => Ok(()),
        found => Err(ChangeError::Status { found }),
    }
}
