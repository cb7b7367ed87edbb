//! Domains of tenants in the landlord.
use super::write::{self, fenced_write};
use crate::error::{NameConflict, StoreError, UnreadableRow};
use crate::names::{Domain, InvalidName};
use crate::operation::FencingToken;
use crate::store::registry::rules;
use crate::store::schema::LandlordPool;
use crate::tenant::TenantId;
use sqlx::Row;

const LIST: &str = "SELECT domain FROM tenantry.tenant_domains WHERE tenant_id = $1 ORDER BY domain COLLATE \"C\"";

pub(super) async fn list(landlord: &LandlordPool, tenant: TenantId) -> Result<Vec<Domain>, StoreError> {
    let names: Vec<String> = sqlx::query_scalar(LIST).bind(tenant.as_uuid()).fetch_all(landlord).await?;
    let unreadable = |name: &str, cause| UnreadableRow::new("tenant_domains", name, StoreError::corrupt(cause));
    names.into_iter().map(|name| name.parse().map_err(|cause: InvalidName| unreadable(&name, cause).into())).collect()
}

/// FOR SHARE on the tenant makes a concurrent deletion wait. The foreign key's own lock (FOR KEY SHARE) would not: it
/// allows an update of the tenant's status.
const ADD: &str = fenced_write!(
    "tenant AS (SELECT t.id FROM tenantry.tenants t, fence WHERE t.id = $3 AND t.status <> 'deleted' FOR SHARE OF t),
    done AS (INSERT INTO tenantry.tenant_domains (domain, tenant_id) SELECT $4, id FROM tenant
        ON CONFLICT (domain) DO NOTHING RETURNING domain)"
);
const EXPLAIN_ADD: &str = "SELECT
    (SELECT tenant_id = $1 FROM tenantry.tenant_domains WHERE domain = $2) AS ours,
    EXISTS (SELECT FROM tenantry.tenants WHERE id = $1 AND status <> 'deleted') AS tenant";

pub(super) async fn add(
    landlord: &LandlordPool, tenant: TenantId, domain: &Domain, writer: Option<FencingToken>,
) -> Result<(), StoreError> {
    let add = write::statement(ADD, writer).bind(tenant.as_uuid()).bind(domain.as_str());
    if write::run(landlord, add).await? {
        return Ok(());
    }
    let state = sqlx::query(EXPLAIN_ADD).bind(tenant.as_uuid()).bind(domain.as_str()).fetch_one(landlord).await?;
    match state.try_get("ours")? {
        Some(true) => Ok(()),
        _ if !state.try_get("tenant")? => Err(rules::no_tenant()),
        Some(false) => Err(StoreError::Taken(NameConflict::Domain(domain.clone()))),
        None => Err(write::concurrent_change()),
    }
}

const REMOVE: &str = fenced_write!(
    "done AS (DELETE FROM tenantry.tenant_domains d USING fence
        WHERE d.tenant_id = $3 AND d.domain = $4 RETURNING d.domain)"
);

pub(super) async fn remove(
    landlord: &LandlordPool, tenant: TenantId, domain: &Domain, writer: Option<FencingToken>,
) -> Result<(), StoreError> {
    let remove = write::statement(REMOVE, writer).bind(tenant.as_uuid()).bind(domain.as_str());
    // `false` means that the domain is absent or belongs to another tenant. Both are `Ok`.
    write::run(landlord, remove).await.map(drop)
}
