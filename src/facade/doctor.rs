//! [`Tenantry::doctor`]: the entry to the examination of the installation.
use super::Tenantry;
use crate::doctor::Doctor;

impl Tenantry {
    /// The doctor: compares the landlord with the servers and the tenants' databases, and says what deviates.
    ///
    /// An examination only reads. It opens one session in each tenant's database as the provisioner and one as the
    /// application, four tenants at a time, so run it where its load does not matter.
    ///
    /// ```no_run
    /// # async fn example(tenantry: tenantry::Tenantry) -> Result<(), Box<dyn std::error::Error>> {
    /// let plan = tenantry.doctor().examine().await?;
    /// for finding in &plan.findings {
    ///     println!("{} {} {}: {:?}", finding.severity, finding.code, finding.subject, finding.evidence);
    /// }
    /// std::fs::write("plan.json", plan.to_json())?;
    /// # Ok(()) }
    /// ```
    pub fn doctor(&self) -> Doctor {
        Doctor::new(self.inner.examiner.clone())
    }
}
