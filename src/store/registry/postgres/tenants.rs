//! Tenants in the landlord: creation, update, soft delete, and removal of a tenant whose provisioning is undone.
use super::write::{self, fenced_write};
use crate::error::{NameConflict, StoreError};
use crate::json;
use crate::names::Domain;
use crate::operation::FencingToken;
use crate::store::registry::rules;
use crate::store::schema::LandlordPool;
use crate::tenant::{Tenant, TenantId, TenantStatus};
use sqlx::Row;

/// A taken domain fails the whole statement, so no tenant is stored either. The domains are sorted: two concurrent
/// tenants that want the same domains lock them in the same order, so they do not deadlock.
const CREATE: &str = fenced_write!(
    "done AS (INSERT INTO tenantry.tenants (id, slug, name, status, metadata)
        SELECT $3, $4, $5, 'provisioning', $6 FROM fence ON CONFLICT DO NOTHING RETURNING id),
    domains AS (INSERT INTO tenantry.tenant_domains (domain, tenant_id) SELECT unnest($7::text[]), id FROM done)"
);

/// `same` is NULL if there is no such tenant.
const EXPLAIN_CREATE: &str = "SELECT
    (SELECT t.slug = $2 AND t.name = $3 AND t.status = 'provisioning' AND t.metadata = $4
        AND ARRAY(SELECT domain FROM tenantry.tenant_domains WHERE tenant_id = $1 ORDER BY domain COLLATE \"C\") = $5
     FROM tenantry.tenants t WHERE t.id = $1) AS same,
    EXISTS (SELECT FROM tenantry.tenants WHERE slug = $2 AND status <> 'deleted' AND id <> $1) AS slug,
    (SELECT domain FROM tenantry.tenant_domains WHERE domain = ANY ($5) AND tenant_id <> $1 LIMIT 1) AS domain";

pub(super) async fn create(
    landlord: &LandlordPool, tenant: &Tenant, domains: &[Domain], writer: FencingToken,
) -> Result<(), StoreError> {
    rules::check_creation(tenant)?;
    let mut names: Vec<_> = domains.iter().map(Domain::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let create = write::statement(CREATE, Some(writer)).bind(tenant.id().as_uuid()).bind(tenant.slug().as_str());
    if write::run(landlord, create.bind(tenant.name()).bind(json::to_stored(tenant.metadata())?).bind(&names)).await? {
        return Ok(());
    }
    let state =
        sqlx::query(EXPLAIN_CREATE).bind(tenant.id().as_uuid()).bind(tenant.slug().as_str()).bind(tenant.name());
    let state = state.bind(json::to_stored(tenant.metadata())?).bind(&names).fetch_one(landlord).await?;
    let domain = state.try_get::<Option<&str>, _>("domain")?;
    match state.try_get("same")? {
        Some(true) => Ok(()),
        Some(false) => Err(rules::other_tenant()),
        None if state.try_get("slug")? => Err(StoreError::Taken(NameConflict::Slug(tenant.slug().clone()))),
        None => Err(match domains.iter().find(|d| Some(d.as_str()) == domain) {
            Some(domain) => StoreError::Taken(NameConflict::Domain(domain.clone())),
            None => write::concurrent_change(),
        }),
    }
}

const DISCARD: &str = fenced_write!(
    "tenant AS (SELECT t.id FROM tenantry.tenants t, fence WHERE t.id = $3 AND t.status = 'provisioning'
        AND NOT EXISTS (SELECT FROM tenantry.placements p WHERE p.tenant_id = t.id) FOR UPDATE OF t),
    users AS (DELETE FROM tenantry.tenant_database_users u USING tenant WHERE u.tenant_id = tenant.id),
    entries AS (DELETE FROM tenantry.tenant_databases d USING tenant WHERE d.tenant_id = tenant.id),
    done AS (DELETE FROM tenantry.tenants t USING tenant WHERE t.id = tenant.id RETURNING t.id)"
);
const EXPLAIN_DISCARD: &str =
    "SELECT t.status, EXISTS (SELECT FROM tenantry.placements p WHERE p.tenant_id = t.id) AS placed
    FROM tenantry.tenants t WHERE t.id = $1";

pub(super) async fn discard(landlord: &LandlordPool, tenant: TenantId, writer: FencingToken) -> Result<(), StoreError> {
    if write::run(landlord, write::statement(DISCARD, Some(writer)).bind(tenant.as_uuid())).await? {
        return Ok(());
    }
    let Some(state) = sqlx::query(EXPLAIN_DISCARD).bind(tenant.as_uuid()).fetch_optional(landlord).await? else {
        return Ok(());
    };
    let status: &str = state.try_get("status")?;
    Err(match status {
        "provisioning" if state.try_get("placed")? => rules::still_placed(),
        "provisioning" => write::concurrent_change(),
        status => rules::not_provisioning(status),
    })
}

/// A change to `deleted` fires the trigger `tenant_deleted`, which frees the domains and drops entries and users in the
/// same statement.
const UPDATE: &str = fenced_write!(
    "done AS (UPDATE tenantry.tenants t
        SET slug = $4, name = $5, status = $6, metadata = $7, kept_until = $8, updated_at = now(),
            deleted_at = CASE WHEN $6 = 'deleted' THEN coalesce(t.deleted_at, now()) END
        FROM fence
        WHERE t.id = $3 AND t.slug = $9 AND t.name = $10 AND t.status = $11 AND t.metadata = $12
          AND t.kept_until IS NOT DISTINCT FROM $13
        RETURNING t.id)"
);
const EXPLAIN_UPDATE: &str = "SELECT
    (slug, name, status, metadata) = ($2, $3, $4, $5) AND kept_until IS NOT DISTINCT FROM $6 AS same,
    (slug, name, status, metadata) = ($7, $8, $9, $10) AND kept_until IS NOT DISTINCT FROM $11 AS expected,
    EXISTS (SELECT FROM tenantry.tenants o WHERE o.slug = $2 AND o.status <> 'deleted' AND o.id <> $1) AS slug
    FROM tenantry.tenants WHERE id = $1";

pub(super) async fn update(
    landlord: &LandlordPool, expected: &Tenant, tenant: &Tenant, writer: Option<FencingToken>,
) -> Result<(), StoreError> {
    rules::check_update(expected, tenant)?;
    let update = write::statement(UPDATE, writer).bind(tenant.id().as_uuid());
    if write::run(landlord, bind_tenant(bind_tenant(update, tenant)?, expected)?).await? {
        return Ok(());
    }
    let state = bind_tenant(bind_tenant(sqlx::query(EXPLAIN_UPDATE).bind(tenant.id().as_uuid()), tenant)?, expected)?;
    let state = state.fetch_optional(landlord).await?.ok_or_else(rules::no_tenant)?;
    match (state.try_get("same")?, state.try_get("expected")?, state.try_get("slug")?) {
        (true, ..) => Ok(()),
        (false, true, true) => Err(StoreError::Taken(NameConflict::Slug(tenant.slug().clone()))),
        (false, true, false) => Err(write::concurrent_change()),
        (false, false, _) => Err(rules::changed_tenant()),
    }
}

fn bind_tenant<'q>(statement: write::Statement<'q>, tenant: &'q Tenant) -> Result<write::Statement<'q>, StoreError> {
    let status: TenantStatus = tenant.status();
    let statement = statement.bind(tenant.slug().as_str()).bind(tenant.name()).bind(status.as_str());
    Ok(statement.bind(json::to_stored(tenant.metadata())?).bind(tenant.kept_until()))
}
