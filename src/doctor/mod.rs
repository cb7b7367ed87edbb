//! The doctor: compares the landlord with the servers and the tenants' databases, and repairs what a plan selects.
//!
//! [`Tenantry::doctor`](crate::Tenantry::doctor) returns a [`Doctor`]. [`Doctor::examine`] reads and returns a
//! [`Plan`]: the findings with the repairs that are proposed. A person reviews it, also as a file
//! ([`Plan::to_json`]).
//!
//! Invariants:
//! - An examination creates nothing and changes nothing. What it could not see is a finding, and never counts as
//!   healthy.
//! - A check is a pure function from what was observed to findings.
//! - A repair acts only if a fresh examination makes the same finding with the same fingerprint.
use crate::error::DoctorError;
use crate::names::ServerName;
use crate::store::registry::TenantRegistry;
use crate::tenant::TenantRef;
use sqlx::postgres::PgConnectOptions;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

mod action;
mod apply;
mod build_error;
mod checks;
mod code;
mod examine;
mod finding;
mod observe;
mod plan;
mod repair;
mod report;
mod scope;
mod view;
pub use action::Repair;
pub use code::{Code, Severity};
pub(crate) use examine::Examiner;
pub use finding::Finding;
pub use plan::Plan;
pub(crate) use repair::{Drivers, RepairTools, Repairs};
pub use report::{RepairOutcome, Report};
use scope::Scope;
pub(crate) use view::Expected;

/// Called with each finding as it is found.
type OnFinding = Arc<dyn Fn(&Finding) + Send + Sync>;

/// Examines the landlord, the servers and the tenants, and repairs what a plan selects.
#[must_use = "the doctor does nothing until examine() or apply() is called"]
#[derive(Clone)]
pub struct Doctor {
    examiner: Examiner,
    drivers: Drivers,
    scope: Scope,
    /// Connections of server admins, for this call only. They contain passwords.
    admins: repair::Admins,
    on_finding: OnFinding,
}

impl Doctor {
    pub(crate) fn new(examiner: Examiner, drivers: Drivers) -> Self {
        Self { examiner, drivers, scope: Scope::default(), admins: HashMap::new(), on_finding: Arc::new(|_| {}) }
    }
    /// Examines this tenant and its place on its server only.
    pub fn tenant<'a>(mut self, tenant: impl Into<TenantRef<'a>>) -> Self {
        self.scope.tenant = Some(tenant.into().into_owned());
        self
    }
    /// Examines this server and its tenants only.
    pub fn server(mut self, name: ServerName) -> Self {
        self.scope.server = Some(name);
        self
    }
    /// Reads the landlord only and connects to no server: open operations, keys, replaced logins, rows that cannot be
    /// parsed. Fast, also with many tenants. It has no effect together with [`tenant`](Self::tenant) or
    /// [`server`](Self::server).
    pub fn landlord_only(mut self) -> Self {
        self.scope.landlord_only = true;
        self
    }
    /// Whether to log in as each tenant's application; `true` by default. Without it the migrations, the sequences and
    /// the passwords are not examined.
    pub fn logins(mut self, yes: bool) -> Self {
        self.scope.skips_logins = !yes;
        self
    }
    /// A server admin's connection for this call. Only with it provisioner logins can be repaired. It is not stored.
    pub fn admin(mut self, server: ServerName, options: PgConnectOptions) -> Self {
        self.examiner.add_admin(server.clone());
        self.admins.insert(server, options);
        self
    }
    /// Compares the directory entries with the application's second registry too, which must name the same databases.
    pub fn compare_with(mut self, other: Arc<dyn TenantRegistry>) -> Self {
        self.scope.second = Some(other);
        self
    }
    /// Called with each finding as it is found. It must not block.
    pub fn on_finding(mut self, callback: impl Fn(&Finding) + Send + Sync + 'static) -> Self {
        self.on_finding = Arc::new(callback);
        self
    }

    /// Compares the landlord, the servers and the tenants. It only reads. A subject that cannot be read is a finding.
    ///
    /// # Errors
    /// [`DoctorError::UnknownTenant`] or [`DoctorError::UnknownServer`] if the one that the caller named does not exist,
    /// and [`DoctorError::Landlord`] if the landlord does not answer.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn examine(&self) -> Result<Plan, DoctorError> {
        let on_finding = self.on_finding.clone();
        self.examiner.examine_all(&self.scope, &mut move |finding| on_finding(finding)).await
    }
}

/// Without the admins' connections, because they contain passwords.
impl fmt::Debug for Doctor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Doctor(..)")
    }
}
