//! Reads of tenants in the landlord. Text that is not a valid slug or domain is answered without a query.
use super::rows;
use crate::error::StoreError;
use crate::names::{Domain, Slug};
use crate::tenant::{Tenant, TenantId, TenantRef};
use sqlx::PgPool;
use uuid::Uuid;

const BY_ID: &str = "SELECT id, slug, name, status, metadata, kept_until FROM tenantry.tenants WHERE id = $1";
const BY_SLUG: &str =
    "SELECT id, slug, name, status, metadata, kept_until FROM tenantry.tenants WHERE slug = $1 AND status <> 'deleted'";
const BY_DOMAIN: &str = "SELECT t.id, t.slug, t.name, t.status, t.metadata, t.kept_until FROM tenantry.tenant_domains d
    JOIN tenantry.tenants t ON t.id = d.tenant_id WHERE d.domain = $1 AND t.status <> 'deleted'";
const FIRST_PAGE: &str = "SELECT id, slug, name, status, metadata, kept_until FROM tenantry.tenants
    WHERE status <> 'deleted' ORDER BY id LIMIT $1";
const PAGE: &str = "SELECT id, slug, name, status, metadata, kept_until FROM tenantry.tenants
    WHERE status <> 'deleted' AND id > $2 ORDER BY id LIMIT $1";
const INSTALLATION: &str = "SELECT id FROM tenantry.installation";

pub(super) async fn find(landlord: &PgPool, tenant: TenantRef<'_>) -> Result<Option<Tenant>, StoreError> {
    let row = match &tenant {
        TenantRef::Id(id) => sqlx::query(BY_ID).bind(id.as_uuid()).fetch_optional(landlord).await?,
        TenantRef::Slug(text) if text.parse::<Slug>().is_ok() => {
            sqlx::query(BY_SLUG).bind(text.as_ref()).fetch_optional(landlord).await?
        }
        TenantRef::Domain(text) if text.parse::<Domain>().is_ok() => {
            sqlx::query(BY_DOMAIN).bind(text.as_ref()).fetch_optional(landlord).await?
        }
        TenantRef::Slug(_) | TenantRef::Domain(_) => None,
    };
    row.as_ref().map(rows::parse_tenant).transpose()
}

pub(super) async fn page(landlord: &PgPool, after: Option<TenantId>, limit: u32) -> Result<Vec<Tenant>, StoreError> {
    let page = match after {
        None => sqlx::query(FIRST_PAGE).bind(i64::from(limit)),
        Some(id) => sqlx::query(PAGE).bind(i64::from(limit)).bind(id.as_uuid()),
    };
    page.fetch_all(landlord).await?.iter().map(rows::parse_tenant).collect()
}

pub(super) async fn installation_id(landlord: &PgPool) -> Result<Uuid, StoreError> {
    let id = sqlx::query_scalar(INSTALLATION).fetch_optional(landlord).await?;
    id.ok_or_else(|| {
        StoreError::corrupt("the landlord's table tenantry.installation has no row; restore it from a backup")
    })
}
