//! The verbs of [`Call`] on a tenant: what each one begins, returns and can fail with.
//!
//! A verb is a value that `Tenantry::suspend(..)` and its siblings wrap in a [`Call`]. `begin` commits its intent;
//! `answer` turns the operation's end into the caller's result.
//!
//! Invariant: a verb does nothing before `begin`, and `begin` is one commit in the landlord.
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

/// A verb of [`Call`]: an operation that an application can call. Sealed. Application code does not need to name this
/// trait.
#[async_trait]
pub trait CallVerb: sealed::Sealed + Sized + Send + 'static {
    /// What the caller gets when the operation has succeeded.
    type Answer: Send + 'static;
    /// Error of the operation.
    type Error: std::error::Error + From<StoreError> + Send + 'static;
    #[doc(hidden)]
    async fn begin(self, on: &Tenantry, key: Option<String>, reason: Option<String>) -> Result<Begun, Self::Error>;
    #[doc(hidden)]
    async fn answer(on: &Tenantry, outcome: Outcome) -> Result<Self::Answer, Self::Error>;
    /// Name of the step after which the caller may get an interim answer; `None` if it always waits for the end.
    #[doc(hidden)]
    const INTERIM: Option<&'static str> = None;
    /// The answer after the [`INTERIM`](Self::INTERIM) step; `None` if the caller has to wait for the end.
    #[doc(hidden)]
    async fn read_interim(_: &Tenantry, _: OperationId) -> Result<Option<Self::Answer>, Self::Error> {
        Ok(None)
    }
    #[doc(hidden)]
    fn busy_error(operation: OperationId) -> Self::Error;
    #[doc(hidden)]
    fn closed_error() -> Self::Error;
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
    fn busy_error(operation: OperationId) -> ProvisionError {
        ProvisionError::KeyReused { operation }
    }
    fn closed_error() -> ProvisionError {
        ProvisionError::Closed
    }
}

macro_rules! lifecycle_verbs {
    ($(
        $(#[$doc:meta])*
        $name:ident($verb:expr) => $answer:ty, $read_answer:ident $(, $step:expr, $read_interim:ident)?;
    )*) => {$(
        $(#[$doc])*
        pub struct $name {
            tenant: TenantRef<'static>,
            verb: Verb,
        }
        impl $name {
            pub(super) fn new(tenant: TenantRef<'_>) -> Self {
                Self { tenant: tenant.into_owned(), verb: $verb }
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
                on.inner.lifecycle.$read_answer(outcome).await
            }
            $(
                const INTERIM: Option<&'static str> = Some($step);
                async fn read_interim(on: &Tenantry, id: OperationId) -> Result<Option<$answer>, ChangeError> {
                    on.inner.lifecycle.$read_interim(id).await
                }
            )?
            fn busy_error(operation: OperationId) -> ChangeError {
                ChangeError::Busy { operation }
            }
            fn closed_error() -> ChangeError {
                ChangeError::Closed
            }
        }
    )*};
}
lifecycle_verbs! {
    /// The operation of [`Tenantry::suspend`], as the type parameter of [`Call`]. Programs need not name it.
    Suspend(Verb::Suspend) => ShutOut, shut_out, END_SESSIONS, closing;
    /// The operation of [`Tenantry::activate`], as the type parameter of [`Call`]. Programs need not name it.
    Activate(Verb::Activate) => Tenant, tenant_after;
    /// The operation of [`Tenantry::archive`], as the type parameter of [`Call`]. Programs need not name it.
    Archive(Verb::Archive { keep_for: THIRTY_DAYS }) => ShutOut, shut_out, END_SESSIONS, closing;
    /// The operation of [`Tenantry::restore`], as the type parameter of [`Call`]. Programs need not name it.
    Restore(Verb::Restore) => Tenant, tenant_after;
    /// The operation of [`Tenantry::purge`], as the type parameter of [`Call`]. Programs need not name it.
    Purge(Verb::Purge { force: false }) => Purged, purged;
}

/// The operation of [`Tenantry::migrate`], as the type parameter of [`Call`]. Programs need not name it.
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
    fn busy_error(operation: OperationId) -> ChangeError {
        ChangeError::Busy { operation }
    }
    fn closed_error() -> ChangeError {
        ChangeError::Closed
    }
}

const THIRTY_DAYS: u64 = 30 * 24 * 3600;

impl Call<Archive> {
    /// How long the data is kept, counted from now; 30 days by default. A fraction of a second is rounded up.
    pub fn keep_for(mut self, duration: Duration) -> Self {
        self.verb.verb = Verb::Archive { keep_for: duration.as_secs() + u64::from(duration.subsec_nanos() > 0) };
        self
    }
}
impl Call<Purge> {
    /// Destroys the data now, even if the tenant is not archived or the deadline of its archive has not passed.
    pub fn force(mut self) -> Self {
        self.verb.verb = Verb::Purge { force: true };
        self
    }
}
