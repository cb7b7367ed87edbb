//! Tenants with one damage each, and what an examination finds about them.
use crate::auditor;
use crate::fail_closed::{primary_entry, run_sql};
use sqlx::ConnectOptions;
use std::collections::{BTreeMap, BTreeSet};
use tenantry::doctor::{Code, Plan};
use tenantry::operation::Subject;
use tenantry::testing::Harness;
use tenantry::{TenantId, Tenantry, sqlx};

/// Names of one tenant's objects, for the SQL of a damage.
pub(crate) struct Names {
    pub(crate) id: TenantId,
    pub(crate) database: String,
    pub(crate) login: String,
    /// The role that owns the tenants' databases.
    pub(crate) admin: String,
    /// A role that can log in and belongs to no tenant.
    pub(crate) stranger: String,
}

/// SQL that damages a tenant.
pub(crate) enum Damage {
    /// As a superuser of the server.
    Server(fn(&Names) -> String),
    /// As a superuser in the tenant's database.
    Inside(fn(&Names) -> String),
    /// In the landlord.
    Landlord(fn(&Names) -> String),
}

/// The status of a tenant before it is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Active,
    Suspended,
    Archived,
}

/// One damage, and what the doctor has to say about it.
pub(crate) struct Drift {
    /// Slug of the tenant.
    pub(crate) name: &'static str,
    pub(crate) before: Before,
    pub(crate) damage: &'static [Damage],
    /// All codes that are found about the tenant.
    pub(crate) codes: &'static [Code],
    /// Whether the doctor repairs it. If not, the finding says why.
    pub(crate) is_repaired: bool,
}

impl Drift {
    pub(crate) const fn new(name: &'static str, codes: &'static [Code], damage: &'static [Damage]) -> Self {
        Self { name, before: Before::Active, damage, codes, is_repaired: true }
    }
    pub(crate) const fn of(self, before: Before) -> Self {
        Self { before, ..self }
    }
    pub(crate) const fn left(self) -> Self {
        Self { is_repaired: false, ..self }
    }
}

/// Creates the role that belongs to no tenant, and returns its name.
pub(crate) async fn create_stranger(harness: &Harness) -> String {
    let stranger = format!("{}_stranger", harness.prefix());
    run_sql(&mut auditor::superuser(harness).await, format!("CREATE ROLE \"{stranger}\" LOGIN")).await;
    stranger
}

/// Provisions a tenant and brings it to this status. Returns its names.
pub(crate) async fn provision(harness: &Harness, tenantry: &Tenantry, slug: &str, before: Before) -> Names {
    let id = tenantry.provision(slug).await.unwrap_or_else(|error| panic!("{slug}: {error:?}")).tenant.id();
    let entry = primary_entry(tenantry, slug).await;
    match before {
        Before::Active => {}
        Before::Suspended => drop(tenantry.suspend(slug).await.unwrap()),
        Before::Archived => drop(tenantry.archive(slug).await.unwrap()),
    }
    let (database, login) = (entry.database.to_string(), entry.login.to_string());
    let (admin, stranger) = (format!("{}_admin", harness.prefix()), format!("{}_stranger", harness.prefix()));
    Names { id, database, login, admin, stranger }
}

/// Damages a tenant.
pub(crate) async fn inject(harness: &Harness, names: &Names, damage: &[Damage]) {
    for damage in damage {
        match damage {
            Damage::Server(sql) => run_sql(&mut auditor::superuser(harness).await, sql(names)).await,
            Damage::Inside(sql) => {
                let options = harness.server().admin_options().database(&names.database);
                run_sql(&mut options.connect().await.unwrap(), sql(names)).await;
            }
            Damage::Landlord(sql) => run_sql(&mut harness.landlord().acquire().await.unwrap(), sql(names)).await,
        }
    }
}

/// The codes that were found about each tenant.
pub(crate) fn codes_by_tenant(plan: &Plan) -> BTreeMap<TenantId, BTreeSet<&'static str>> {
    let mut found: BTreeMap<TenantId, BTreeSet<&'static str>> = BTreeMap::new();
    for finding in &plan.findings {
        if let Subject::Tenant(tenant) = finding.subject {
            found.entry(tenant).or_default().insert(finding.code.as_str());
        }
    }
    found
}

/// Examines, and fails unless nothing was found.
pub(crate) async fn assert_clean(tenantry: &Tenantry, when: &str) {
    let plan = tenantry.doctor().examine().await.unwrap();
    assert!(plan.is_clean() && plan.busy == 0, "{when}: {}", plan.to_json());
}

/// Applies plans until no repair is offered any more, at most three times: one damage may hide another one.
pub(crate) async fn repair_all(tenantry: &Tenantry) {
    for round in 0..3 {
        let plan = tenantry.doctor().examine().await.unwrap();
        if plan.repairs().next().is_none() {
            return;
        }
        let report = tenantry.doctor().apply(&plan, "test").await.unwrap();
        for (finding, outcome) in &report.outcomes {
            println!("round {round}: {} {:?} {:?}: {outcome:?}", finding.code, finding.tenant, finding.object);
        }
    }
}
