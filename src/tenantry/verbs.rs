//! What each verb answers and how it can fail.
use super::{Call, Tenantry};
use crate::error::{ChangeError, ProvisionError, StoreError};
use crate::lifecycle::{Purged, Verb};
use crate::operation::OperationId;
use crate::provision::{Provision, Provisioned};
use crate::saga::{Begun, Outcome};
use crate::tenant::{Tenant, TenantRef};
use async_trait::async_trait;

/// A verb of [`Call`]. Sealed; hosts never name it.
#[async_trait]
pub trait CallVerb: sealed::Sealed + Sized + Send + 'static {
    /// What it answers.
    type Answer: Send + 'static;
    /// How it fails.
    type Error: std::error::Error + From<StoreError> + Send + 'static;
    #[doc(hidden)]
    async fn begin(self, on: &Tenantry, key: Option<String>, reason: Option<String>) -> Result<Begun, Self::Error>;
    #[doc(hidden)]
    async fn answer(on: &Tenantry, outcome: Outcome) -> Result<Self::Answer, Self::Error>;
    #[doc(hidden)]
    fn busy(operation: OperationId) -> Self::Error;
    #[doc(hidden)]
    fn closed() -> Self::Error;
}
mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for Provision {}
#[async_trait]
impl CallVerb for Provision {
    type Answer = Provisioned;
    type Error = ProvisionError;
    async fn begin(mut self, on: &Tenantry, key: Option<String>, reason: Option<String>) -> Result<Begun, Self::Error> {
        (self.key, self.reason) = (key, reason);
        on.inner.provisioner.begin(self).await
    }
    async fn answer(on: &Tenantry, outcome: Outcome) -> Result<Provisioned, ProvisionError> {
        on.inner.provisioner.answer(outcome).await
    }
    fn busy(operation: OperationId) -> ProvisionError {
        ProvisionError::KeyReused { operation }
    }
    fn closed() -> ProvisionError {
        ProvisionError::Closed
    }
}

macro_rules! lifecycle_verbs {
    ($($(#[$doc:meta])* $name:ident => $answer:ty, $verb:expr, $end:ident;)*) => {$(
        $(#[$doc])*
        pub struct $name {
            tenant: TenantRef<'static>,
            force: bool,
        }
        impl $name {
            pub(super) fn new(tenant: TenantRef<'_>) -> Self {
                Self { tenant: tenant.into_owned(), force: false }
            }
        }
        impl sealed::Sealed for $name {}
        #[async_trait]
        impl CallVerb for $name {
            type Answer = $answer;
            type Error = ChangeError;
            async fn begin(
                self, on: &Tenantry, key: Option<String>, reason: Option<String>,
            ) -> Result<Begun, ChangeError> {
                on.inner.lifecycle.begin(($verb)(self.force), self.tenant, key, reason).await
            }
            async fn answer(on: &Tenantry, outcome: Outcome) -> Result<$answer, ChangeError> {
                on.inner.lifecycle.$end(outcome).await
            }
            fn busy(operation: OperationId) -> ChangeError {
                ChangeError::Busy { operation }
            }
            fn closed() -> ChangeError {
                ChangeError::Closed
            }
        }
    )*};
}
lifecycle_verbs! {
    /// [`Tenantry::suspend`].
    Suspend => Tenant, |_| Verb::Suspend, tenant_after;
    /// [`Tenantry::activate`].
    Activate => Tenant, |_| Verb::Activate, tenant_after;
    /// [`Tenantry::purge`].
    Purge => Purged, |force| Verb::Purge { force }, purged;
}

impl Call<Purge> {
    /// The data may go now, before any deadline.
    pub fn force(mut self) -> Self {
        self.verb.force = true;
        self
    }
}
