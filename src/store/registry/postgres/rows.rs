//! Converts rows of the landlord to values. Stored text is parsed. A row with a value that is not valid is an
//! [`UnreadableRow`] that names it.
use crate::directory::{DatabaseUser, Generation, TenantDatabase};
use crate::error::{StoreError, UnreadableRow};
use crate::server::{DatabaseServer, ServerNames};
use crate::store::registry::{Placement, ServerLoad};
use crate::tenant::{Tenant, TenantId};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Decode, Postgres, Row, Type};
use std::{error::Error, str::FromStr};

pub(super) fn parse_tenant(row: &PgRow) -> Result<Tenant, UnreadableRow> {
    read_tenant(row).map_err(|cause| UnreadableRow::new("tenants", uuid_of(row, "id"), cause))
}

pub(super) fn parse_database(row: &PgRow) -> Result<TenantDatabase, UnreadableRow> {
    let id = || [uuid_of(row, "tenant_id"), text_of(row, "kind"), text_of(row, "host"), text_of(row, "database")];
    read_database(row).map_err(|cause| UnreadableRow::new("tenant_databases", id().join("/"), cause))
}

pub(super) fn parse_user(row: &PgRow) -> Result<DatabaseUser, UnreadableRow> {
    let id = || [text_of(row, "server"), text_of(row, "role")];
    read_user(row).map_err(|cause| UnreadableRow::new("tenant_database_users", id().join("/"), cause))
}

pub(super) fn parse_placement(row: &PgRow) -> Result<Placement, UnreadableRow> {
    read_placement(row).map_err(|cause| UnreadableRow::new("placements", uuid_of(row, "tenant_id"), cause))
}

pub(super) fn parse_server(row: &PgRow) -> Result<ServerLoad, UnreadableRow> {
    read_server(row).map_err(|cause| UnreadableRow::new("database_servers", text_of(row, "name"), cause))
}

/// The value of a column of the primary key, for an error; `?` if even that cannot be read.
fn uuid_of(row: &PgRow, name: &str) -> String {
    row.try_get::<uuid::Uuid, _>(name).map_or_else(|_| String::from("?"), |id| id.to_string())
}

fn text_of(row: &PgRow, name: &str) -> String {
    row.try_get(name).unwrap_or_else(|_| String::from("?"))
}

fn read_tenant(row: &PgRow) -> Result<Tenant, StoreError> {
    let tenant =
        Tenant::new(TenantId::from_uuid(field(row, "id")?), parsed_field(row, "slug")?, parsed_field(row, "status")?);
    let tenant = tenant.with_name(field::<String>(row, "name")?).with_metadata(field(row, "metadata")?);
    Ok(tenant.with_kept_until(field(row, "kept_until")?))
}

fn read_database(row: &PgRow) -> Result<TenantDatabase, StoreError> {
    Ok(TenantDatabase {
        tenant: TenantId::from_uuid(field(row, "tenant_id")?),
        kind: parsed_field(row, "kind")?,
        driver: parsed_field(row, "driver")?,
        server: field::<Option<String>>(row, "server")?.map(parse).transpose()?,
        host: field(row, "host")?,
        port: u16_field(row, "port")?,
        database: parsed_field(row, "database")?,
        login: parsed_field(row, "login")?,
        roles: field::<Option<Json<_>>>(row, "roles")?.map(|json| json.0),
        credential: field::<Json<_>>(row, "credential")?.0,
        generation: Generation(field(row, "generation")?),
        status: parsed_field(row, "status")?,
        settings: field::<Json<_>>(row, "settings")?.0,
        schema_state: field(row, "schema_state")?,
    })
}

fn read_user(row: &PgRow) -> Result<DatabaseUser, StoreError> {
    Ok(DatabaseUser {
        tenant: TenantId::from_uuid(field(row, "tenant_id")?),
        server: parsed_field(row, "server")?,
        database: parsed_field(row, "database")?,
        role: parsed_field(row, "role")?,
        generation: Generation(field(row, "generation")?),
        status: parsed_field(row, "status")?,
        reason: field(row, "reason")?,
    })
}

fn read_placement(row: &PgRow) -> Result<Placement, StoreError> {
    let tenant = TenantId::from_uuid(field(row, "tenant_id")?);
    Ok(Placement::new(tenant, parsed_field(row, "server")?, parsed_field(row, "database")?))
}

fn read_server(row: &PgRow) -> Result<ServerLoad, StoreError> {
    let names = ServerNames {
        admin: parsed_field(row, "admin_role")?,
        blue: parsed_field(row, "blue")?,
        green: parsed_field(row, "green")?,
        maintenance: parsed_field(row, "maintenance")?,
    };
    let server = DatabaseServer {
        name: parsed_field(row, "name")?,
        host: field(row, "host")?,
        port: u16_field(row, "port")?,
        tls: parsed_field(row, "tls")?,
        root_certificate: field(row, "root_certificate")?,
        names,
        login: parsed_field(row, "login")?,
        secret_version: field(row, "secret_version")?,
        status: parsed_field(row, "status")?,
        capacity: u32_field(row, "capacity")?,
        weight: u32_field(row, "weight")?,
        draining: field(row, "draining")?,
        max_connections: u32_field(row, "max_connections")?,
        labels: field(row, "labels")?,
        allowed_roles: field::<sqlx::types::Json<_>>(row, "allowed_roles")?.0,
        system_identifier: field(row, "system_identifier")?,
        address_mac: field(row, "address_mac")?,
        created_at: field(row, "created_at")?,
    };
    Ok(ServerLoad { server, tenants: u32_field(row, "tenants")? })
}

fn field<'r, T: Decode<'r, Postgres> + Type<Postgres>>(row: &'r PgRow, name: &str) -> Result<T, StoreError> {
    Ok(row.try_get(name)?)
}

fn parsed_field<T: FromStr<Err: Error + Send + Sync + 'static>>(row: &PgRow, name: &str) -> Result<T, StoreError> {
    parse(field::<String>(row, name)?)
}

fn parse<T: FromStr<Err: Error + Send + Sync + 'static>>(text: String) -> Result<T, StoreError> {
    text.parse().map_err(StoreError::corrupt)
}

fn u16_field(row: &PgRow, name: &str) -> Result<u16, StoreError> {
    u16::try_from(field::<i32>(row, name)?).map_err(StoreError::corrupt)
}

fn u32_field(row: &PgRow, name: &str) -> Result<u32, StoreError> {
    u32::try_from(field::<i64>(row, name)?).map_err(StoreError::corrupt)
}
