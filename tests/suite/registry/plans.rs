//! Registry look-ups use an index, also with 100 000 tenants.
//!
//! The test calls the registry and reads the statement from `pg_stat_activity`, so it explains exactly what the crate
//! sends.
#![expect(clippy::disallowed_methods, reason = "EXPLAIN of a statement that the server itself reports")]
use crate::landlord;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tenantry::registry::{PgTenantRegistry, TenantRegistry};
use tenantry::{TenantId, TenantRef};

/// 100 000 tenants, nine in ten active with a domain and a primary database, the rest deleted.
const MANY: &str = "
    INSERT INTO tenantry.tenants (id, slug, name, status, deleted_at)
        SELECT gen_random_uuid(), 't-' || n, 'Tenant', CASE WHEN n % 10 = 0 THEN 'deleted' ELSE 'active' END,
            CASE WHEN n % 10 = 0 THEN now() END
        FROM generate_series(1, 100000) n;
    INSERT INTO tenantry.tenant_domains (domain, tenant_id)
        SELECT slug || '.example.test', id FROM tenantry.tenants WHERE status = 'active';
    INSERT INTO tenantry.tenant_databases
            (tenant_id, kind, driver, host, port, database, login, credential, generation, status)
        SELECT id, 'primary', 'postgres', 'db', 5432, slug, slug, '{}', 1, 'active' FROM tenantry.tenants
        WHERE status = 'active';
    ANALYZE tenantry.tenants, tenantry.tenant_domains, tenantry.tenant_databases";
/// The last statement of the registry's session.
const LAST: &str =
    "SELECT query FROM pg_stat_activity WHERE application_name = 'lookups' AND datname = current_database()";

/// The generic plan of the statement that the registry has just run.
async fn plan(landlord: &PgPool, arguments: &str) -> String {
    let statement: String = sqlx::query_scalar(LAST).fetch_one(landlord).await.unwrap();
    let mut session: PgConnection = landlord.acquire().await.unwrap().detach();
    sqlx::raw_sql("SET plan_cache_mode = force_generic_plan").execute(&mut session).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("PREPARE probe AS {statement}"))).execute(&mut session).await.unwrap();
    let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE probe ({arguments})"));
    let rows: Vec<(String,)> = sqlx::raw_sql(explain)
        .fetch_all(&mut session)
        .await
        .unwrap()
        .iter()
        .map(sqlx::FromRow::from_row)
        .collect::<Result<_, _>>()
        .unwrap();
    session.close().await.unwrap();
    rows.into_iter().map(|row| row.0).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn lookups_and_pages_use_index_scans() {
    let options = landlord::empty().await;
    let landlord = landlord::pool(options.clone());
    tenantry::schema::install(&landlord).await.unwrap();
    sqlx::raw_sql(MANY).execute(&landlord).await.unwrap();
    let single = sqlx::postgres::PgPoolOptions::new().max_connections(1);
    let registry = PgTenantRegistry::new(single.connect_lazy_with(options.application_name("lookups")));

    let acme = registry.find("t-4711".into()).await.unwrap().expect("a tenant by slug");
    let by_slug = plan(&landlord, "'t-4711'").await;
    let by_domain = registry.find(TenantRef::Domain("t-4711.example.test".into())).await.unwrap();
    assert_eq!(by_domain.as_ref(), Some(&acme));
    let by_domain = plan(&landlord, "'t-4711.example.test'").await;
    registry.find(acme.id().into()).await.unwrap().expect("a tenant by id");
    let by_id = plan(&landlord, &format!("'{}'", acme.id())).await;
    registry.databases(TenantId::new()).await.unwrap();
    let databases = plan(&landlord, &format!("'{}'", acme.id())).await;
    assert_eq!(registry.page(None, 50).await.unwrap().len(), 50);
    let first_page = plan(&landlord, "50").await;
    assert_eq!(registry.page(Some(TenantId::from_uuid(uuid(0x80))), 50).await.unwrap().len(), 50);
    let page = plan(&landlord, &format!("50, '{}'", uuid(0x80))).await;

    let expected = [
        (&by_slug, "tenants_slug"),
        (&by_domain, "tenant_domains_pkey"),
        (&by_domain, "tenants_pkey"),
        (&by_id, "tenants_pkey"),
        (&databases, "tenant_databases_pkey"),
        (&first_page, "tenants_pkey"),
        (&page, "tenants_pkey"),
    ];
    for (plan, index) in expected {
        assert!(plan.contains(index), "expected a scan of {index}:\n{plan}");
        assert!(!plan.contains("Seq Scan"), "the plan scans the whole table:\n{plan}");
    }
    for page in [&first_page, &page] {
        assert!(!page.contains("Sort"), "the plan sorts the page instead of reading it in index order:\n{page}");
    }
}

/// A UUID with this first byte and zeros.
fn uuid(first: u8) -> sqlx::types::Uuid {
    let mut bytes = [0; 16];
    bytes[0] = first;
    sqlx::types::Uuid::from_bytes(bytes)
}
