//! [`Tenantry::doctor`]: the examination of the whole installation, and its repairs.
use super::Tenantry;
use crate::doctor::{Doctor, Drivers};
use std::sync::Arc;

impl Tenantry {
    /// Compares the landlord with the servers and the tenants' databases, and repairs what a plan selects.
    ///
    /// An examination opens one session in each tenant's database as the provisioner and one as the application, four
    /// tenants at a time, so run it where its load does not matter.
    ///
    /// ```no_run
    /// # async fn example(tenantry: tenantry::Tenantry) -> Result<(), Box<dyn std::error::Error>> {
    /// let doctor = tenantry.doctor();
    /// let plan = doctor.examine().await?;
    /// for finding in &plan.findings {
    ///     println!("{} {}: {:?}", finding.severity, finding.code, finding.repair);
    /// }
    /// let report = doctor.apply(&plan, "ops/grace: ticket 17").await?;
    /// assert!(report.is_complete());
    /// # Ok(()) }
    /// ```
    pub fn doctor(&self) -> Doctor {
        let inner = &self.inner;
        let resolver = inner.resolver.clone();
        let drivers = Drivers {
            stores: inner.stores.clone(),
            engine: inner.engine.clone(),
            recoverer: inner.recoverer.clone(),
            repairs: inner.repairs.clone(),
            lifecycle: inner.lifecycle.clone(),
            migration: inner.migration.clone(),
            rotation: inner.rotation.clone(),
            restore_entry: inner.restore_entry.clone(),
            rekey: inner.rekey.clone(),
            servers: inner.servers.clone(),
            changed: Arc::new(move |tenant| resolver.invalidate(tenant)),
        };
        Doctor::new(inner.examiner.clone(), drivers)
    }
}
