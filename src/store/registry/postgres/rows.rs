//! Rows as values. A stored word is parsed again: what does not parse is [`StoreError::Corrupt`].
use crate::directory::{DatabaseUser, Generation, TenantDatabase};
use crate::error::StoreError;
use crate::server::{DatabaseServer, ServerNames};
use crate::store::registry::{Placement, ServerLoad};
use crate::tenant::{Tenant, TenantId};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Decode, Postgres, Row, Type};
use std::{error::Error, str::FromStr};

pub(super) fn tenant(row: &PgRow) -> Result<Tenant, StoreError> {
    let tenant = Tenant::new(TenantId::from_uuid(field(row, "id")?), word(row, "slug")?, word(row, "status")?);
    let tenant = tenant.with_name(field::<String>(row, "name")?).with_metadata(field(row, "metadata")?);
    Ok(tenant.with_kept_until(field(row, "kept_until")?))
}

pub(super) fn database(row: &PgRow) -> Result<TenantDatabase, StoreError> {
    Ok(TenantDatabase {
        tenant: TenantId::from_uuid(field(row, "tenant_id")?),
        kind: word(row, "kind")?,
        driver: word(row, "driver")?,
        server: field::<Option<String>>(row, "server")?.map(parsed).transpose()?,
        host: field(row, "host")?,
        port: number(row, "port")?,
        database: word(row, "database")?,
        login: word(row, "login")?,
        roles: field::<Option<Json<_>>>(row, "roles")?.map(|json| json.0),
        credential: field::<Json<_>>(row, "credential")?.0,
        generation: Generation(field(row, "generation")?),
        status: word(row, "status")?,
        settings: field::<Json<_>>(row, "settings")?.0,
    })
}

pub(super) fn user(row: &PgRow) -> Result<DatabaseUser, StoreError> {
    Ok(DatabaseUser {
        tenant: TenantId::from_uuid(field(row, "tenant_id")?),
        server: word(row, "server")?,
        database: word(row, "database")?,
        role: word(row, "role")?,
        generation: Generation(field(row, "generation")?),
        status: word(row, "status")?,
        reason: field(row, "reason")?,
    })
}

pub(super) fn placement(row: &PgRow) -> Result<Placement, StoreError> {
    let tenant = TenantId::from_uuid(field(row, "tenant_id")?);
    Ok(Placement::new(tenant, word(row, "server")?, word(row, "database")?))
}

pub(super) fn server(row: &PgRow) -> Result<ServerLoad, StoreError> {
    let names = ServerNames {
        admin: word(row, "admin_role")?,
        blue: word(row, "blue")?,
        green: word(row, "green")?,
        maintenance: word(row, "maintenance")?,
    };
    let server = DatabaseServer {
        name: word(row, "name")?,
        host: field(row, "host")?,
        port: number(row, "port")?,
        tls: word(row, "tls")?,
        root_certificate: field(row, "root_certificate")?,
        names,
        login: word(row, "login")?,
        secret_version: field(row, "secret_version")?,
        status: word(row, "status")?,
        capacity: big_number(row, "capacity")?,
        weight: big_number(row, "weight")?,
        draining: field(row, "draining")?,
        max_connections: big_number(row, "max_connections")?,
        labels: field(row, "labels")?,
        allowed_roles: field::<sqlx::types::Json<_>>(row, "allowed_roles")?.0,
        system_identifier: field(row, "system_identifier")?,
        created_at: field(row, "created_at")?,
    };
    Ok(ServerLoad { server, tenants: big_number(row, "tenants")? })
}

fn field<'r, T: Decode<'r, Postgres> + Type<Postgres>>(row: &'r PgRow, name: &str) -> Result<T, StoreError> {
    Ok(row.try_get(name)?)
}

fn word<T: FromStr<Err: Error + Send + Sync + 'static>>(row: &PgRow, name: &str) -> Result<T, StoreError> {
    parsed(field::<String>(row, name)?)
}

fn parsed<T: FromStr<Err: Error + Send + Sync + 'static>>(text: String) -> Result<T, StoreError> {
    text.parse().map_err(StoreError::corrupt)
}

fn number(row: &PgRow, name: &str) -> Result<u16, StoreError> {
    u16::try_from(field::<i32>(row, name)?).map_err(StoreError::corrupt)
}

fn big_number(row: &PgRow, name: &str) -> Result<u32, StoreError> {
    u32::try_from(field::<i64>(row, name)?).map_err(StoreError::corrupt)
}
