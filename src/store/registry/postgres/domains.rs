use super::write::{self, fenced};
use crate::error::{NameConflict, StoreError};
use crate::names::Domain;
use crate::operation::FencingToken;
use crate::store::registry::rules;
use crate::tenant::TenantId;
use sqlx::{PgPool, Row};

const OF: &str = "SELECT domain FROM tenantry.tenant_domains WHERE tenant_id = $1 ORDER BY domain COLLATE \"C\"";

pub(super) async fn of(landlord: &PgPool, tenant: TenantId) -> Result<Vec<Domain>, StoreError> {
    let names: Vec<String> = sqlx::query_scalar(OF).bind(tenant.as_uuid()).fetch_all(landlord).await?;
    names.into_iter().map(|name| name.parse().map_err(StoreError::corrupt)).collect()
}

/// FOR SHARE, since the foreign key's own lock would not keep a deletion out.
const ADD: &str = fenced!(
    "tenant AS (SELECT t.id FROM tenantry.tenants t, fence WHERE t.id = $3 AND t.status <> 'deleted' FOR SHARE OF t),
    done AS (INSERT INTO tenantry.tenant_domains (domain, tenant_id) SELECT $4, id FROM tenant
        ON CONFLICT (domain) DO NOTHING RETURNING domain)"
);
const ADDED: &str = "SELECT
    (SELECT tenant_id = $1 FROM tenantry.tenant_domains WHERE domain = $2) AS ours,
    EXISTS (SELECT FROM tenantry.tenants WHERE id = $1 AND status <> 'deleted') AS tenant";

pub(super) async fn add(
    landlord: &PgPool, tenant: TenantId, domain: &Domain, writer: Option<FencingToken>,
) -> Result<(), StoreError> {
    let add = write::statement(ADD, writer).bind(tenant.as_uuid()).bind(domain.as_str());
    if write::run(landlord, add).await? {
        return Ok(());
    }
    let why = sqlx::query(ADDED).bind(tenant.as_uuid()).bind(domain.as_str()).fetch_one(landlord).await?;
    match why.try_get("ours")? {
        Some(true) => Ok(()),
        _ if !why.try_get("tenant")? => Err(rules::no_tenant()),
        Some(false) => Err(StoreError::Taken(NameConflict::Domain(domain.clone()))),
        None => Err(write::gone()),
    }
}

const REMOVE: &str = fenced!(
    "done AS (DELETE FROM tenantry.tenant_domains d USING fence
        WHERE d.tenant_id = $3 AND d.domain = $4 RETURNING d.domain)"
);

pub(super) async fn remove(
    landlord: &PgPool, tenant: TenantId, domain: &Domain, writer: Option<FencingToken>,
) -> Result<(), StoreError> {
    let remove = write::statement(REMOVE, writer).bind(tenant.as_uuid()).bind(domain.as_str());
    // Not there, or another tenant's: nothing to remove.
    write::run(landlord, remove).await.map(drop)
}
