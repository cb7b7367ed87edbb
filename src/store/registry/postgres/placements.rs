//! Placements of tenants in the landlord, and the number of tenants on each server.
//!
//! Invariant: `database_servers.tenants` is the number of the server's placements. Each write changes both in one
//! statement.
use super::rows;
use super::servers;
use super::write::{self, fenced_write};
use crate::error::{NameConflict, Rows, StoreError};
use crate::names::{DatabaseName, ServerName};
use crate::operation::FencingToken;
use crate::server::DatabaseServer;
use crate::store::registry::{Placement, rules};
use crate::store::schema::LandlordPool;
use crate::tenant::TenantId;
use sqlx::Row;

const FIND: &str = "SELECT tenant_id, server, database FROM tenantry.placements WHERE tenant_id = $1";

pub(super) async fn find(landlord: &LandlordPool, tenant: TenantId) -> Result<Option<Placement>, StoreError> {
    let row = sqlx::query(FIND).bind(tenant.as_uuid()).fetch_optional(landlord).await?;
    Ok(row.as_ref().map(rows::parse_placement).transpose()?)
}

const FIND_WITH_SERVER: &str = "SELECT s.*, p.tenant_id, p.server, p.database FROM tenantry.placements p
    JOIN tenantry.database_servers s ON s.name = p.server WHERE p.tenant_id = $1";

pub(super) async fn find_with_server(
    landlord: &LandlordPool, tenant: TenantId,
) -> Result<Option<(Placement, DatabaseServer)>, StoreError> {
    let row = sqlx::query(FIND_WITH_SERVER).bind(tenant.as_uuid()).fetch_optional(landlord).await?;
    row.map(|row| Ok((rows::parse_placement(&row)?, rows::parse_server(&row)?.server))).transpose()
}

const FIRST_PAGE: &str = "SELECT tenant_id, server, database FROM tenantry.placements
    WHERE server = $1 ORDER BY database LIMIT $2";
const PAGE: &str = "SELECT tenant_id, server, database FROM tenantry.placements
    WHERE server = $1 AND database > $3 ORDER BY database LIMIT $2";

/// Reads on until the page has a placement that can be parsed, because the next page begins after the last such one.
/// The names are compared in the landlord only, so its collation decides on their order.
pub(super) async fn page(
    landlord: &LandlordPool, server: &ServerName, after: Option<&DatabaseName>, limit: u32,
) -> Result<Rows<Placement>, StoreError> {
    let (mut after, mut unreadable) = (after.map(|name| name.as_str().to_owned()), vec![]);
    loop {
        let page = match &after {
            None => sqlx::query(FIRST_PAGE).bind(server.as_str()).bind(i64::from(limit)),
            Some(name) => sqlx::query(PAGE).bind(server.as_str()).bind(i64::from(limit)).bind(name),
        };
        let found = page.fetch_all(landlord).await?;
        // The next page reads the rows after the last placement that can be parsed again.
        let end = found.iter().rposition(|row| rows::parse_placement(row).is_ok()).map(|last| last + 1);
        let is_last = found.len() < limit as usize || limit == 0;
        let reported = if is_last { found.len() } else { end.unwrap_or(found.len()) };
        let mut page = Rows::parse(&found[..reported], rows::parse_placement);
        unreadable.append(&mut page.unreadable);
        if is_last || end.is_some() {
            return Ok(Rows { unreadable, ..page });
        }
        after = found.last().map(|row| row.try_get("database")).transpose()?;
    }
}

/// The update of the server's counter is the lock. A concurrent call waits for it and then checks `tenants < capacity`
/// on the new row. It does not check again whether the tenant has a placement, because that part sees the old snapshot.
/// There the primary key of `placements` fails the whole statement.
const RESERVE: &str = fenced_write!(
    "server AS (UPDATE tenantry.database_servers s SET tenants = s.tenants + 1 FROM fence
        WHERE s.name = $4 AND s.status = 'ready' AND NOT s.draining AND s.tenants < s.capacity
          AND NOT EXISTS (SELECT FROM tenantry.placements p WHERE p.tenant_id = $3)
        RETURNING s.name),
    done AS (INSERT INTO tenantry.placements (tenant_id, server, database) SELECT $3, name, $5 FROM server
        RETURNING tenant_id)"
);
const OWNER: &str = "SELECT tenant_id FROM tenantry.placements WHERE server = $1 AND database = $2";

pub(super) async fn reserve(
    landlord: &LandlordPool, placement: &Placement, writer: FencingToken,
) -> Result<(), StoreError> {
    let reserve =
        write::statement(RESERVE, Some(writer)).bind(placement.tenant.as_uuid()).bind(placement.server.as_str());
    if write::run(landlord, reserve.bind(placement.database.as_str())).await? {
        return Ok(());
    }
    match find(landlord, placement.tenant).await? {
        Some(stored) if stored == *placement => return Ok(()),
        Some(stored) => return Err(rules::already_placed(&stored)),
        None => {}
    }
    let owner = sqlx::query(OWNER).bind(placement.server.as_str()).bind(placement.database.as_str());
    if owner.fetch_optional(landlord).await?.is_some() {
        return Err(StoreError::Taken(NameConflict::Database(placement.server.clone(), placement.database.clone())));
    }
    let load = servers::find(landlord, &placement.server).await?.ok_or_else(|| rules::no_server(&placement.server))?;
    Err(if rules::has_room(&load) {
        write::concurrent_change()
    } else {
        StoreError::Taken(NameConflict::ServerFull(placement.server.clone()))
    })
}

/// Locks the server's row first, in the same order as [`RESERVE`].
const RELEASE: &str = fenced_write!(
    "server AS (SELECT s.name FROM tenantry.database_servers s JOIN tenantry.placements p ON p.server = s.name, fence
        WHERE p.tenant_id = $3 FOR NO KEY UPDATE OF s),
    place AS (DELETE FROM tenantry.placements p USING server
        WHERE p.tenant_id = $3 AND p.server = server.name RETURNING p.server),
    done AS (UPDATE tenantry.database_servers s SET tenants = s.tenants - 1 FROM place
        WHERE s.name = place.server RETURNING s.name)"
);

pub(super) async fn release(landlord: &LandlordPool, tenant: TenantId, writer: FencingToken) -> Result<(), StoreError> {
    // `false` means that there was no placement. That is `Ok`.
    write::run(landlord, write::statement(RELEASE, Some(writer)).bind(tenant.as_uuid())).await.map(drop)
}
