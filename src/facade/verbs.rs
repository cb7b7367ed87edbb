//! What each verb answers and how it can fail.
use super::{Call, Tenantry};
use crate::error::{ChangeError, ProvisionError, StoreError};
use crate::operation::OperationId;
use crate::operations::lifecycle::{END_SESSIONS, Purged, ShutOut, Verb};
use crate::operations::migrate::Migrated;
use crate::operations::provision::{Provision, Provisioned};
use crate::saga::Outcome;
use crate::store::journal::Begun;
use crate::tenant::{Tenant, TenantRef};
use async_trait::async_trait;
use std::time::Duration;

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
    /// The step after which a caller need not wait for the end.
    #[doc(hidden)]
    const INTERIM: Option<&'static str> = None;
    /// What a caller learns then; `None`: wait for the end.
    #[doc(hidden)]
    async fn interim(_: &Tenantry, _: OperationId) -> Result<Option<Self::Answer>, Self::Error> {
        Ok(None)
    }
    #[doc(hidden)]
    fn busy(operation: OperationId) -> Self::Error;
    #[doc(hidden)]
    fn closed() -> Self::Error;
}
pub(super) mod sealed {
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
    ($($(#[$doc:meta])* $name:ident($start:expr) => $answer:ty, $end:ident $(, $step:expr, $interim:ident)?;)*) => {$(
        $(#[$doc])*
        pub struct $name {
            tenant: TenantRef<'static>,
            verb: Verb,
        }
        impl $name {
            pub(super) fn new(tenant: TenantRef<'_>) -> Self {
                Self { tenant: tenant.into_owned(), verb: $start }
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
                on.inner.lifecycle.begin(self.verb, self.tenant, key, reason).await
            }
            async fn answer(on: &Tenantry, outcome: Outcome) -> Result<$answer, ChangeError> {
                on.inner.lifecycle.$end(outcome).await
            }
            $(
                const INTERIM: Option<&'static str> = Some($step);
                async fn interim(on: &Tenantry, id: OperationId) -> Result<Option<$answer>, ChangeError> {
                    on.inner.lifecycle.$interim(id).await
                }
            )?
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
    Suspend(Verb::Suspend) => ShutOut, shut_out, END_SESSIONS, closing;
    /// [`Tenantry::activate`].
    Activate(Verb::Activate) => Tenant, tenant_after;
    /// [`Tenantry::archive`].
    Archive(Verb::Archive { keep_for: THIRTY_DAYS }) => ShutOut, shut_out, END_SESSIONS, closing;
    /// [`Tenantry::restore`].
    Restore(Verb::Restore) => Tenant, tenant_after;
    /// [`Tenantry::purge`].
    Purge(Verb::Purge { force: false }) => Purged, purged;
}

/// [`Tenantry::migrate`].
pub struct Migrate(TenantRef<'static>);
impl Migrate {
    pub(super) fn new(tenant: TenantRef<'_>) -> Self {
        Self(tenant.into_owned())
    }
}
impl sealed::Sealed for Migrate {}
#[async_trait]
impl CallVerb for Migrate {
    type Answer = Migrated;
    type Error = ChangeError;
    async fn begin(self, on: &Tenantry, key: Option<String>, reason: Option<String>) -> Result<Begun, ChangeError> {
        on.inner.migration.begin(self.0, key, reason).await
    }
    async fn answer(on: &Tenantry, outcome: Outcome) -> Result<Migrated, ChangeError> {
        on.inner.migration.migrated(outcome).await
    }
    fn busy(operation: OperationId) -> ChangeError {
        ChangeError::Busy { operation }
    }
    fn closed() -> ChangeError {
        ChangeError::Closed
    }
}

const THIRTY_DAYS: u64 = 30 * 24 * 3600;

impl Call<Archive> {
    /// For how long the data is kept, from now, in whole seconds (more is rounded up); 30 days by default.
    pub fn keep_for(mut self, kept: Duration) -> Self {
        self.verb.verb = Verb::Archive { keep_for: kept.as_secs() + u64::from(kept.subsec_nanos() > 0) };
        self
    }
}
impl Call<Purge> {
    /// The data may go now, before any deadline.
    pub fn force(mut self) -> Self {
        self.verb.verb = Verb::Purge { force: true };
        self
    }
}
