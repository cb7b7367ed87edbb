//! Reads of tenants in the landlord. Text that is not a valid slug or domain is answered without a query.
use super::rows;
use crate::error::{Rows, StoreError};
use crate::names::{Domain, Slug};
use crate::store::schema::LandlordPool;
use crate::tenant::{Tenant, TenantId, TenantRef};
use sqlx::Row;
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

pub(super) async fn find(landlord: &LandlordPool, tenant: TenantRef<'_>) -> Result<Option<Tenant>, StoreError> {
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
    Ok(row.as_ref().map(rows::parse_tenant).transpose()?)
}

/// Reads on until the page has a tenant that can be parsed, because the next page begins after the last such tenant.
pub(super) async fn page(
    landlord: &LandlordPool, mut after: Option<TenantId>, limit: u32,
) -> Result<Rows<Tenant>, StoreError> {
    let mut unreadable = vec![];
    loop {
        let page = match after {
            None => sqlx::query(FIRST_PAGE).bind(i64::from(limit)),
            Some(id) => sqlx::query(PAGE).bind(i64::from(limit)).bind(id.as_uuid()),
        };
        let found = page.fetch_all(landlord).await?;
        // The next page reads the rows after the last tenant that can be parsed again.
        let end = found.iter().rposition(|row| rows::parse_tenant(row).is_ok()).map(|last| last + 1);
        let is_last = found.len() < limit as usize || limit == 0;
        let reported = if is_last { found.len() } else { end.unwrap_or(found.len()) };
        let mut page = Rows::parse(&found[..reported], rows::parse_tenant);
        unreadable.append(&mut page.unreadable);
        if is_last || end.is_some() {
            return Ok(Rows { unreadable, ..page });
        }
        after = found.last().map(|row| row.try_get("id")).transpose()?.map(TenantId::from_uuid);
    }
}

pub(super) async fn installation_id(landlord: &LandlordPool) -> Result<Uuid, StoreError> {
    let id = sqlx::query_scalar(INSTALLATION).fetch_optional(landlord).await?;
    id.ok_or_else(|| {
        StoreError::corrupt("the landlord's table tenantry.installation has no row; restore it from a backup")
    })
}
