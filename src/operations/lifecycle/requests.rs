//! The requests of the lifecycle operations, one type for each, and the answer that its caller gets.
//!
//! The facade's methods make them: `Tenantry::suspend(..)` returns a `Call<Suspend>`.
use super::{END_SESSIONS, Lifecycle, Purged, ShutOut, Verb};
use crate::error::ChangeError;
use crate::operation::OperationId;
use crate::operations::verb::CallVerb;
use crate::saga::{CallOptions, Outcome, Started};
use crate::tenant::{Tenant, TenantRef};
use async_trait::async_trait;
use std::time::Duration;

/// How long an archive keeps the data if the caller sets nothing, in seconds.
const THIRTY_DAYS: u64 = 30 * 24 * 3600;

macro_rules! lifecycle_requests {
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
            pub(crate) fn new(tenant: TenantRef<'_>) -> Self {
                Self { tenant: tenant.into_owned(), verb: $verb }
            }
        }
        #[async_trait]
        impl CallVerb for $name {
            type Driver = Lifecycle;
            type Answer = $answer;
            type Error = ChangeError;
            async fn begin(self, driver: &Lifecycle, options: &CallOptions) -> Result<Started, ChangeError> {
                driver.begin(self.verb, self.tenant, options).await
            }
            async fn answer(driver: &Lifecycle, outcome: Outcome) -> Result<$answer, ChangeError> {
                driver.$read_answer(outcome).await
            }
            $(
                const INTERIM: Option<&'static str> = Some($step);
                async fn read_interim(driver: &Lifecycle, id: OperationId) -> Result<Option<$answer>, ChangeError> {
                    driver.$read_interim(id).await
                }
            )?
        }
    )*};
}
lifecycle_requests! {
    /// Type parameter of `Call` for [`suspend`](crate::Tenantry::suspend); not used directly.
    Suspend(Verb::Suspend) => ShutOut, read_shut_out, END_SESSIONS, read_closing;
    /// Type parameter of `Call` for [`activate`](crate::Tenantry::activate); not used directly.
    Activate(Verb::Activate) => Tenant, read_tenant_after;
    /// Type parameter of `Call` for [`archive`](crate::Tenantry::archive); not used directly.
    Archive(Verb::Archive { keep_for: THIRTY_DAYS }) => ShutOut, read_shut_out, END_SESSIONS, read_closing;
    /// Type parameter of `Call` for [`restore`](crate::Tenantry::restore); not used directly.
    Restore(Verb::Restore) => Tenant, read_tenant_after;
    /// Type parameter of `Call` for [`purge`](crate::Tenantry::purge); not used directly.
    Purge(Verb::Purge { force: false }) => Purged, read_purged;
}

impl Archive {
    /// Sets how long the data is kept. A fraction of a second is rounded up.
    pub(crate) fn keep_for(&mut self, duration: Duration) {
        self.verb = Verb::Archive { keep_for: duration.as_secs() + u64::from(duration.subsec_nanos() > 0) };
    }
}
impl Purge {
    /// Destroys the data now, whatever the tenant's status and deadline.
    pub(crate) fn force(&mut self) {
        self.verb = Verb::Purge { force: true };
    }
}
