use super::rows;
use super::servers;
use super::write::{self, fenced};
use crate::error::{NameConflict, StoreError};
use crate::operation::FencingToken;
use crate::server::DatabaseServer;
use crate::store::registry::{Placement, rules};
use crate::tenant::TenantId;
use sqlx::PgPool;

const OF: &str = "SELECT tenant_id, server, database FROM tenantry.placements WHERE tenant_id = $1";

pub(super) async fn of(landlord: &PgPool, tenant: TenantId) -> Result<Option<Placement>, StoreError> {
    let row = sqlx::query(OF).bind(tenant.as_uuid()).fetch_optional(landlord).await?;
    row.as_ref().map(rows::placement).transpose()
}

const WITH_SERVER: &str = "SELECT s.*, p.tenant_id, p.server, p.database FROM tenantry.placements p
    JOIN tenantry.database_servers s ON s.name = p.server WHERE p.tenant_id = $1";

pub(super) async fn with_server(
    landlord: &PgPool, tenant: TenantId,
) -> Result<Option<(Placement, DatabaseServer)>, StoreError> {
    let row = sqlx::query(WITH_SERVER).bind(tenant.as_uuid()).fetch_optional(landlord).await?;
    row.map(|row| Ok((rows::placement(&row)?, rows::server(&row)?.server))).transpose()
}

/// Counting is the lock: the server's row is updated under its own condition, which a waiting call looks at anew. What
/// a waiting call cannot see anew, the tenant's own place, is held by the primary key: then all of it fails.
const RESERVE: &str = fenced!(
    "server AS (UPDATE tenantry.database_servers s SET tenants = s.tenants + 1 FROM fence
        WHERE s.name = $4 AND s.status = 'ready' AND NOT s.draining AND s.tenants < s.capacity
          AND NOT EXISTS (SELECT FROM tenantry.placements p WHERE p.tenant_id = $3)
        RETURNING s.name),
    done AS (INSERT INTO tenantry.placements (tenant_id, server, database) SELECT $3, name, $5 FROM server
        RETURNING tenant_id)"
);
const OWNER: &str = "SELECT tenant_id FROM tenantry.placements WHERE server = $1 AND database = $2";

pub(super) async fn reserve(landlord: &PgPool, place: &Placement, writer: FencingToken) -> Result<(), StoreError> {
    let reserve = write::statement(RESERVE, Some(writer)).bind(place.tenant.as_uuid()).bind(place.server.as_str());
    if write::run(landlord, reserve.bind(place.database.as_str())).await? {
        return Ok(());
    }
    match of(landlord, place.tenant).await? {
        Some(stored) if stored == *place => return Ok(()),
        Some(stored) => return Err(rules::placed(&stored)),
        None => {}
    }
    let owner = sqlx::query(OWNER).bind(place.server.as_str()).bind(place.database.as_str());
    if owner.fetch_optional(landlord).await?.is_some() {
        return Err(StoreError::Taken(NameConflict::Database(place.server.clone(), place.database.clone())));
    }
    let load = servers::one(landlord, &place.server).await?.ok_or_else(|| rules::no_server(&place.server))?;
    Err(if rules::has_room(&load) {
        write::gone()
    } else {
        StoreError::Taken(NameConflict::ServerFull(place.server.clone()))
    })
}

/// The server's row is locked first, as `RESERVE` does it.
const RELEASE: &str = fenced!(
    "server AS (SELECT s.name FROM tenantry.database_servers s JOIN tenantry.placements p ON p.server = s.name, fence
        WHERE p.tenant_id = $3 FOR NO KEY UPDATE OF s),
    place AS (DELETE FROM tenantry.placements p USING server
        WHERE p.tenant_id = $3 AND p.server = server.name RETURNING p.server),
    done AS (UPDATE tenantry.database_servers s SET tenants = s.tenants - 1 FROM place
        WHERE s.name = place.server RETURNING s.name)"
);

pub(super) async fn release(landlord: &PgPool, tenant: TenantId, writer: FencingToken) -> Result<(), StoreError> {
    // No place, no change.
    write::run(landlord, write::statement(RELEASE, Some(writer)).bind(tenant.as_uuid())).await.map(drop)
}
