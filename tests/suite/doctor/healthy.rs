//! A healthy fleet has no finding, and an examination changes nothing.
use crate::auditor;
use crate::provision::{migrated, statement_of};
use tenantry::doctor::{Code, Finding, Plan};
use tenantry::error::DoctorError;
use tenantry::testing::Harness;
use tenantry::{Tenantry, sqlx};

/// Examines everything.
pub(crate) async fn examine(tenantry: &Tenantry) -> Plan {
    tenantry.doctor().examine().await.unwrap()
}

/// The codes of a plan, each with the slug of the tenant or the text of the subject, sorted.
pub(crate) fn found(plan: &Plan) -> Vec<(Code, String)> {
    let subject = |finding: &Finding| match &finding.tenant {
        Some(slug) => slug.to_string(),
        None => finding.subject.to_string(),
    };
    let mut found: Vec<_> = plan.findings.iter().map(|finding| (finding.code, subject(finding))).collect();
    found.sort_by_key(|(code, subject)| (code.as_str(), subject.clone()));
    found
}

/// A digest of all rows of the landlord and of the roles and databases of its tenants, with the transactions that have
/// written them.
pub(crate) async fn snapshot(harness: &Harness) -> Vec<(String, String)> {
    let mut rows = vec![];
    const TABLES: &str = "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'tenantry' AND c.relkind = 'r' ORDER BY 1";
    let tables: Vec<String> = sqlx::query_scalar(TABLES).fetch_all(harness.landlord()).await.unwrap();
    for table in tables {
        let statement = format!(
            "SELECT md5(coalesce(string_agg(x.xmin::text || x::text, ',' ORDER BY x::text), '')) FROM {table} x"
        );
        let statement = statement_of(statement);
        let digest: String = sqlx::query_scalar(statement).fetch_one(harness.landlord()).await.unwrap();
        rows.push((table, digest));
    }
    const NAMES: &str = "SELECT database FROM tenantry.placements ORDER BY 1";
    let mut names: Vec<String> = sqlx::query_scalar(NAMES).fetch_all(harness.landlord()).await.unwrap();
    names.push(harness.prefix().to_owned());
    const CATALOG: &str = "SELECT r.rolname::text, md5(r.xmin::text || r::text
            || coalesce((SELECT string_agg(m.xmin::text || m::text, ',' ORDER BY m::text) FROM pg_auth_members m
                WHERE r.oid IN (m.roleid, m.member)), '')
            || coalesce((SELECT string_agg(s.xmin::text || s::text, ',') FROM pg_db_role_setting s
                WHERE s.setrole = r.oid), '')
            || coalesce(shobj_description(r.oid, 'pg_authid'), ''))
        FROM pg_authid r, unnest($1::text[]) p WHERE starts_with(r.rolname, p)
        UNION ALL SELECT d.datname, md5(d.datdba::text || d.datallowconn::text || d.datconnlimit::text
            || coalesce(d.datacl::text, '')) FROM pg_database d, unnest($1::text[]) p WHERE starts_with(d.datname, p)
        ORDER BY 1";
    let catalog = sqlx::query_as(CATALOG).bind(names);
    rows.extend(catalog.fetch_all(&mut auditor::superuser(harness).await).await.unwrap());
    rows
}

/// Tenants in each state that lasts.
async fn fleet(harness: &Harness) -> Tenantry {
    let tenantry = harness.tenantry(migrated).await.unwrap();
    for slug in ["active", "invited", "rotated", "suspended", "archived", "restored", "activated"] {
        let call = tenantry.provision(slug);
        let call = if slug == "invited" { call.admin("ada@acme.example").domain("acme.example") } else { call };
        call.await.unwrap();
    }
    // The old login is kept for an hour.
    tenantry.rotate("rotated").await.unwrap();
    for slug in ["suspended", "activated"] {
        tenantry.suspend(slug).await.unwrap();
    }
    for slug in ["archived", "restored"] {
        tenantry.archive(slug).await.unwrap();
    }
    tenantry.restore("restored").await.unwrap();
    tenantry.activate("activated").await.unwrap();
    tenantry.provision("purged").await.unwrap();
    tenantry.purge("purged").force().await.unwrap();
    tenantry
}

#[tokio::test]
async fn healthy_fleet_has_no_finding() {
    let harness = Harness::start().await.unwrap();
    let tenantry = fleet(&harness).await;
    let plan = examine(&tenantry).await;
    assert_eq!(found(&plan), [], "{:#?}", plan.findings);
    assert!(plan.is_clean());
    assert_eq!((plan.servers, plan.tenants, plan.busy), (1, 7, 0));
    let of_server = tenantry.doctor().server("main".parse().unwrap()).examine().await.unwrap();
    assert_eq!((found(&of_server), of_server.servers, of_server.tenants), (vec![], 1, 7));
    for slug in ["active", "suspended", "archived"] {
        let plan = tenantry.doctor().tenant(slug).examine().await.unwrap();
        assert_eq!((found(&plan), plan.tenants), (vec![], 1), "{slug}");
    }
}

#[tokio::test]
async fn examination_writes_nothing_to_the_landlord_or_the_server() {
    let harness = Harness::start().await.unwrap();
    let tenantry = fleet(&harness).await;
    let before = snapshot(&harness).await;
    examine(&tenantry).await;
    let after = snapshot(&harness).await;
    assert!(before.len() > 20, "the snapshot contains too little: {before:?}");
    assert_eq!(after, before, "an examination has changed something");
}

#[tokio::test]
async fn examination_of_an_unknown_tenant_or_server_fails() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let unknown = tenantry.doctor().tenant("unknown-tenant").examine().await;
    assert!(matches!(unknown, Err(DoctorError::UnknownTenant)), "{unknown:?}");
    let unknown = tenantry.doctor().server("other".parse().unwrap()).examine().await;
    assert!(matches!(unknown, Err(DoctorError::UnknownServer { .. })), "{unknown:?}");
}

#[tokio::test]
async fn fleet_of_owners_with_temporary_tables_has_no_finding() {
    let harness = Harness::start().await.unwrap();
    let access = tenantry::directory::AppAccess::Owner;
    let tenantry = harness.tenantry(|builder| migrated(builder).app_access(access)).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    tenantry.rotate("acme").await.unwrap();
    assert_eq!(found(&examine(&tenantry).await), []);

    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|builder| migrated(builder).temp_tables(true)).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    assert_eq!(found(&examine(&tenantry).await), []);
}
