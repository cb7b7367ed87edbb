//! The doctor: what it finds on real servers, what it leaves alone, and what its repairs do.
mod blocked;
mod crashes;
mod drifts;
mod fleet;
mod healthy;
mod plan_file;
mod servers;

use tenantry::doctor::{Code, Finding, Plan};
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
pub(crate) async fn snapshot(harness: &tenantry::testing::Harness) -> Vec<(String, String)> {
    let mut rows = vec![];
    const TABLES: &str = "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'tenantry' AND c.relkind = 'r' ORDER BY 1";
    let tables: Vec<String> = sqlx::query_scalar(TABLES).fetch_all(harness.landlord()).await.unwrap();
    for table in tables {
        let statement =
            format!("SELECT md5(coalesce(string_agg(x.xmin::text || x::text, ',' ORDER BY x::text), '')) FROM {table} x");
        let statement = crate::provision::statement_of(statement);
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
    rows.extend(catalog.fetch_all(&mut crate::auditor::superuser(harness).await).await.unwrap());
    rows
}
