//! An application that keeps its tenants in tables of its own and implements only the reading trait, `TenantRegistry`.
//!
//! The adapter must pass the conformance suite of that trait.
use crate::landlord;
use async_trait::async_trait;
use sqlx::PgPool;
use sqlx::types::Uuid;
use tenantry::directory::TenantDatabase;
use tenantry::error::{Rows, StoreError};
use tenantry::secret::CredentialId;
use tenantry::tenant::TenantStatus;
use tenantry::testing::conformance;
use tenantry::{Tenant, TenantId, TenantRef, TenantRegistry};

/// The application's table. A closed customer is a deleted tenant.
const CUSTOMERS: &str = "CREATE TABLE customers (
        id uuid PRIMARY KEY, short_name text NOT NULL, dbname text, closed boolean NOT NULL)";

/// The adapter over that table.
struct Legacy(PgPool);

#[derive(sqlx::FromRow)]
struct Customer {
    id: Uuid,
    short_name: String,
    closed: bool,
}

impl Customer {
    fn into_tenant(self) -> Result<Tenant, StoreError> {
        let status = if self.closed { TenantStatus::Deleted } else { TenantStatus::Active };
        let slug = self.short_name.parse().map_err(StoreError::corrupt)?;
        Ok(Tenant::new(TenantId::from_uuid(self.id), slug, status))
    }
}

#[async_trait]
impl TenantRegistry for Legacy {
    async fn find(&self, tenant: TenantRef<'_>) -> Result<Option<Tenant>, StoreError> {
        let row: Option<Customer> = match &tenant {
            TenantRef::Id(id) => {
                sqlx::query_as("SELECT * FROM customers WHERE id = $1")
                    .bind(id.as_uuid())
                    .fetch_optional(&self.0)
                    .await?
            }
            TenantRef::Slug(slug) if !slug.contains('\0') => {
                let by_name = sqlx::query_as("SELECT * FROM customers WHERE short_name = $1 AND NOT closed");
                by_name.bind(slug.as_ref()).fetch_optional(&self.0).await?
            }
            _ => None,
        };
        row.map(Customer::into_tenant).transpose()
    }

    async fn databases(&self, tenant: TenantId) -> Result<Vec<TenantDatabase>, StoreError> {
        let name: Option<String> = sqlx::query_scalar("SELECT dbname FROM customers WHERE id = $1 AND NOT closed")
            .bind(tenant.as_uuid())
            .fetch_optional(&self.0)
            .await?
            .flatten();
        let Some(name) = name else { return Ok(Vec::new()) };
        let database = name.parse().map_err(StoreError::corrupt)?;
        let login = "shared".parse().map_err(StoreError::corrupt)?;
        let credential = CredentialId::login(tenant, &database, &login, 1);
        Ok(vec![TenantDatabase::primary(tenant, "db", 5432, database, login, credential)])
    }

    async fn page(&self, after: Option<TenantId>, limit: u32) -> Result<Rows<Tenant>, StoreError> {
        let page = "SELECT * FROM customers WHERE NOT closed AND ($1::uuid IS NULL OR id > $1) ORDER BY id LIMIT $2";
        let page = sqlx::query_as(page).bind(after.map(TenantId::as_uuid)).bind(i64::from(limit));
        let rows: Vec<Customer> = page.fetch_all(&self.0).await?;
        rows.into_iter().map(Customer::into_tenant).collect()
    }
}

#[tokio::test]
async fn registry_over_the_applications_own_table_passes_the_conformance_suite() {
    let landlord = landlord::pool(landlord::empty().await);
    sqlx::raw_sql(CUSTOMERS).execute(&landlord).await.unwrap();
    let tenant = |slug: &str, status| Tenant::new(TenantId::new(), slug.parse().unwrap(), status);
    let mut seeded: Vec<_> = ["acme", "globex", "initech"].map(|slug| tenant(slug, TenantStatus::Active)).into();
    seeded.extend(["acme", "hooli"].map(|slug| tenant(slug, TenantStatus::Deleted)));
    for tenant in &seeded {
        let closed = tenant.status() == TenantStatus::Deleted;
        let insert = sqlx::query("INSERT INTO customers VALUES ($1, $2, $3, $4)");
        let insert = insert.bind(tenant.id().as_uuid()).bind(tenant.slug().as_str()).bind(tenant.slug().as_str());
        insert.bind(closed).execute(&landlord).await.unwrap();
    }
    conformance::registry(Legacy(landlord), &seeded).await;
}
