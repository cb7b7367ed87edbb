//! Values that PostgreSQL cannot store or returns changed, and rows that violate the crate's rules.
//!
//! Every such case is a typed `StoreError`, never a panic or a silent change.
use crate::landlord;
use serde_json::json;
use sqlx::PgPool;
use tenantry::error::StoreError;
use tenantry::operation::{FencingToken, OperationId};
use tenantry::registry::{PgTenantRegistry, RegistryWriter, ServerRegistry, TenantRegistry};
use tenantry::tenant::TenantStatus;
use tenantry::{Tenant, TenantId};

/// A landlord, its registry, the token of an operation, and a tenant that is not stored yet.
async fn fixture() -> (PgPool, PgTenantRegistry, FencingToken, Tenant) {
    let landlord = landlord::installed().await;
    let registry = PgTenantRegistry::new(landlord.clone());
    let writer = FencingToken { operation: OperationId::new(), epoch: 1 };
    RegistryWriter::fence(&registry, writer.operation, 1).await.unwrap();
    let tenant = Tenant::new(TenantId::new(), "acme".parse().unwrap(), TenantStatus::Provisioning);
    (landlord, registry, writer, tenant)
}

#[tokio::test]
async fn unstorable_value_is_refused() {
    let (_, registry, writer, tenant) = fixture().await;
    for bad in [tenant.clone().with_name("nul\0"), tenant.clone().with_metadata(json!({ "x": "nul\0" }))] {
        let answer = registry.create(&bad, &[], writer).await;
        assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
    }
    assert_eq!(registry.find(tenant.id().into()).await.unwrap(), None);
}

/// `jsonb` returns 1e16 as an integer, which serde_json does not consider equal. So PostgreSQL must compare the values.
#[tokio::test]
async fn repeated_write_of_large_numbers_is_not_a_conflict() {
    let (_, registry, writer, tenant) = fixture().await;
    let tenant = tenant.with_metadata(json!({ "large": 1e16, "small": 1e-7 }));
    registry.create(&tenant, &[], writer).await.unwrap();
    registry.create(&tenant, &[], writer).await.unwrap();
    let renamed = tenant.clone().with_name("Acme");
    registry.update(&tenant, &renamed, None).await.unwrap();
    registry.update(&tenant, &renamed, None).await.unwrap();
}

#[tokio::test]
async fn invalid_row_is_reported_as_corrupt() {
    let (landlord, registry, writer, tenant) = fixture().await;
    registry.create(&tenant, &[], writer).await.unwrap();
    sqlx::query("UPDATE tenantry.tenants SET slug = 'www'").execute(&landlord).await.unwrap();
    let answer = registry.find(tenant.id().into()).await;
    assert!(matches!(answer, Err(StoreError::Corrupt(_))), "{answer:?}");
    sqlx::query("DELETE FROM tenantry.installation").execute(&landlord).await.unwrap();
    let answer = registry.installation().await;
    assert!(matches!(answer, Err(StoreError::Corrupt(_))), "{answer:?}");
}

#[tokio::test]
async fn closed_landlord_pool_is_reported_as_unavailable() {
    let (landlord, registry, writer, tenant) = fixture().await;
    landlord.close().await;
    let answer = registry.create(&tenant, &[], writer).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
}

/// The times come from the landlord's clock: `now()` of the statement that deleted the tenant or dropped the entry.
#[tokio::test]
async fn deletion_times_are_stored_by_the_landlord() {
    const ENDS: &str = "SELECT (SELECT deleted_at IS NOT NULL AND deleted_at = updated_at FROM tenantry.tenants)
        AND (SELECT dropped_at IS NOT NULL FROM tenantry.tenant_databases)";
    let (landlord, registry, writer, tenant) = fixture().await;
    registry.create(&tenant, &[], writer).await.unwrap();
    let database = "t_acme".parse().unwrap();
    let login = "t_acme_v1".parse().unwrap();
    let credential = tenantry::secret::CredentialId::login(tenant.id(), &database, &login, 1);
    let entry = tenantry::directory::TenantDatabase::primary(tenant.id(), "db", 5432, database, login, credential);
    registry.publish(TenantStatus::Provisioning, &entry, writer).await.unwrap();
    let statuses =
        [TenantStatus::Active, TenantStatus::Purging, TenantStatus::Deleted].map(|s| tenant.clone().with_status(s));
    for step in statuses.windows(2) {
        registry.update(&step[0], &step[1], Some(writer)).await.unwrap();
    }
    assert!(sqlx::query_scalar::<_, bool>(ENDS).fetch_one(&landlord).await.unwrap());
}
