//! Servers in the landlord: their rows, with the number of tenants that are placed on each.
use super::rows;
use super::write::{self, fenced_write};
use crate::error::{Rows, StoreError};
use crate::json;
use crate::names::ServerName;
use crate::operation::FencingToken;
use crate::server::DatabaseServer;
use crate::store::registry::{ServerLoad, rules};
use crate::store::schema::LandlordPool;
use serde_json::{json, value::RawValue};
use sqlx::types::Json;

const FIND: &str = "SELECT * FROM tenantry.database_servers WHERE name = $1";
const LIST: &str = "SELECT * FROM tenantry.database_servers ORDER BY name COLLATE \"C\"";

pub(super) async fn find(landlord: &LandlordPool, name: &ServerName) -> Result<Option<ServerLoad>, StoreError> {
    let row = sqlx::query(FIND).bind(name.as_str()).fetch_optional(landlord).await?;
    Ok(row.as_ref().map(rows::parse_server).transpose()?)
}

pub(super) async fn list(landlord: &LandlordPool) -> Result<Rows<ServerLoad>, StoreError> {
    Ok(Rows::parse(&sqlx::query(LIST).fetch_all(landlord).await?, rows::parse_server))
}

// A row is written, and compared, as one JSON object whose keys are the columns, see `to_row_json`.
// jsonb_populate_record turns a JSON null into an SQL NULL, so `coalesce` restores the JSON null of `labels`.

const ADD: &str = fenced_write!(
    "done AS (INSERT INTO tenantry.database_servers (name, host, port, tls, root_certificate, admin_role, blue, green,
            maintenance, login, secret_version, status, capacity, weight, draining, max_connections, labels,
            allowed_roles, system_identifier, address_mac)
        SELECT r.name, r.host, r.port, r.tls, r.root_certificate, r.admin_role, r.blue, r.green, r.maintenance, r.login,
            r.secret_version, r.status, r.capacity, r.weight, r.draining, r.max_connections, coalesce(r.labels, 'null'),
            r.allowed_roles, r.system_identifier, r.address_mac
        FROM fence, jsonb_populate_record(NULL::tenantry.database_servers, $3) r
        ON CONFLICT (name) DO NOTHING RETURNING name)"
);
const REPLACE: &str = fenced_write!(
    "done AS (UPDATE tenantry.database_servers s
        SET host = r.host, port = r.port, tls = r.tls, root_certificate = r.root_certificate,
            admin_role = r.admin_role, blue = r.blue, green = r.green, maintenance = r.maintenance, login = r.login,
            secret_version = r.secret_version, status = r.status, capacity = r.capacity, weight = r.weight,
            draining = r.draining, max_connections = r.max_connections, labels = coalesce(r.labels, 'null'),
            allowed_roles = r.allowed_roles, system_identifier = r.system_identifier,
            address_mac = r.address_mac, updated_at = now()
        FROM fence, jsonb_populate_record(NULL::tenantry.database_servers, $3) r
        WHERE s.name = r.name AND to_jsonb(s) - '{tenants,created_at,updated_at}'::text[] = $4
        RETURNING s.name)"
);
const SAME: &str = "SELECT to_jsonb(s) - '{tenants,created_at,updated_at}'::text[] = $2
    FROM tenantry.database_servers s WHERE name = $1";

pub(super) async fn put(
    landlord: &LandlordPool, expected: Option<&DatabaseServer>, server: &DatabaseServer, writer: Option<FencingToken>,
) -> Result<(), StoreError> {
    rules::check_server_change(expected, server)?;
    let put = match expected {
        None => write::statement(ADD, writer).bind(to_row_json(server)?),
        Some(expected) => write::statement(REPLACE, writer).bind(to_row_json(server)?).bind(to_row_json(expected)?),
    };
    if write::run(landlord, put).await? {
        return Ok(());
    }
    let same = sqlx::query_scalar(SAME).bind(server.name.as_str()).bind(to_row_json(server)?);
    match same.fetch_optional(landlord).await? {
        Some(true) => Ok(()),
        Some(false) => Err(rules::other_server()),
        None => Err(rules::no_server(&server.name)),
    }
}

const REMOVE: &str = fenced_write!(
    "done AS (DELETE FROM tenantry.database_servers s USING fence WHERE s.name = $3 AND s.tenants = 0 RETURNING s.name)"
);

pub(super) async fn remove(
    landlord: &LandlordPool, name: &ServerName, writer: Option<FencingToken>,
) -> Result<(), StoreError> {
    if write::run(landlord, write::statement(REMOVE, writer).bind(name.as_str())).await? {
        return Ok(());
    }
    match find(landlord, name).await? {
        None => Ok(()),
        Some(load) if load.tenants > 0 => Err(rules::server_in_use(name)),
        Some(_) => Err(write::concurrent_change()),
    }
}

/// The columns of a server's row that callers write, as a JSON object.
fn to_row_json(server: &DatabaseServer) -> Result<Json<Box<RawValue>>, StoreError> {
    json::to_stored(&json!({
        "name": server.name,
        "host": server.host,
        "port": server.port,
        "tls": server.tls.as_str(),
        "root_certificate": server.root_certificate,
        "admin_role": server.names.admin,
        "blue": server.names.blue,
        "green": server.names.green,
        "maintenance": server.names.maintenance,
        "login": server.login,
        "secret_version": server.secret_version,
        "status": server.status.as_str(),
        "capacity": server.capacity,
        "weight": server.weight,
        "draining": server.draining,
        "max_connections": server.max_connections,
        "labels": server.labels,
        "allowed_roles": server.allowed_roles,
        "system_identifier": server.system_identifier,
        "address_mac": server.address_mac,
    }))
}
