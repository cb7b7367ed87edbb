//! What stands in the tables, and what cannot.
use crate::landlord;
use serde_json::json;
use sqlx::PgPool;
use tenantry::error::StoreError;
use tenantry::operation::{FencingToken, OperationId};
use tenantry::registry::{PgTenantRegistry, RegistryWriter, ServerRegistry, TenantRegistry};
use tenantry::tenant::TenantStatus;
use tenantry::{Tenant, TenantId};

async fn bench() -> (PgPool, PgTenantRegistry, FencingToken, Tenant) {
    let landlord = landlord::installed().await;
    let registry = PgTenantRegistry::new(landlord.clone());
    let writer = FencingToken { operation: OperationId::new(), epoch: 1 };
    RegistryWriter::fence(&registry, writer.operation, 1).await.unwrap();
    let tenant = Tenant::new(TenantId::new(), "acme".parse().unwrap(), TenantStatus::Provisioning);
    (landlord, registry, writer, tenant)
}

#[tokio::test]
async fn a_value_that_postgres_cannot_hold_is_refused_for_good() {
    let (_, registry, writer, tenant) = bench().await;
    for bad in [tenant.clone().with_name("nul\0"), tenant.clone().with_metadata(json!({ "x": "nul\0" }))] {
        let answer = registry.create(&bad, &[], writer).await;
        assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
    }
    assert_eq!(registry.find(tenant.id().into()).await.unwrap(), None);
}

/// PostgreSQL writes 1e16 as an integer, which Rust's JSON takes for another value: so the landlord compares.
#[tokio::test]
async fn repeating_a_write_of_large_numbers_is_no_conflict() {
    let (_, registry, writer, tenant) = bench().await;
    let tenant = tenant.with_metadata(json!({ "large": 1e16, "small": 1e-7 }));
    registry.create(&tenant, &[], writer).await.unwrap();
    registry.create(&tenant, &[], writer).await.unwrap();
    let renamed = tenant.clone().with_name("Acme");
    registry.update(&tenant, &renamed, None).await.unwrap();
    registry.update(&tenant, &renamed, None).await.unwrap();
}

#[tokio::test]
async fn a_row_that_breaks_a_rule_is_corrupt_and_no_panic() {
    let (landlord, registry, writer, tenant) = bench().await;
    registry.create(&tenant, &[], writer).await.unwrap();
    sqlx::query("UPDATE tenantry.tenants SET slug = 'www'").execute(&landlord).await.unwrap();
    let answer = registry.find(tenant.id().into()).await;
    assert!(matches!(answer, Err(StoreError::Corrupt(_))), "{answer:?}");
    sqlx::query("DELETE FROM tenantry.installation").execute(&landlord).await.unwrap();
    let answer = registry.installation().await;
    assert!(matches!(answer, Err(StoreError::Corrupt(_))), "{answer:?}");
}

#[tokio::test]
async fn a_landlord_that_is_gone_is_unavailable() {
    let (landlord, registry, writer, tenant) = bench().await;
    landlord.close().await;
    let answer = registry.create(&tenant, &[], writer).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
}

/// By the landlord's clock: each time is now() of the statement that ended something.
#[tokio::test]
async fn history_is_stamped() {
    const ENDS: &str = "SELECT (SELECT deleted_at IS NOT NULL AND deleted_at = updated_at FROM tenantry.tenants)
        AND (SELECT dropped_at IS NOT NULL FROM tenantry.tenant_databases)";
    let (landlord, registry, writer, tenant) = bench().await;
    registry.create(&tenant, &[], writer).await.unwrap();
    let database = "t_acme".parse().unwrap();
    let login = "t_acme_v1".parse().unwrap();
    let credential = tenantry::secret::CredentialId::login(tenant.id(), &database, &login, 1);
    let entry = tenantry::directory::TenantDatabase::primary(tenant.id(), "db", 5432, database, login, credential);
    registry.publish(TenantStatus::Provisioning, &entry, writer).await.unwrap();
    let way =
        [TenantStatus::Active, TenantStatus::Purging, TenantStatus::Deleted].map(|s| tenant.clone().with_status(s));
    for two in way.windows(2) {
        registry.update(&two[0], &two[1], Some(writer)).await.unwrap();
    }
    assert!(sqlx::query_scalar::<_, bool>(ENDS).fetch_one(&landlord).await.unwrap());
}
