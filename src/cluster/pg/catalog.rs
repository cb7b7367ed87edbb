//! What is there. Static statements, on sessions whose search path is `pg_catalog`.
use super::ddl;
use crate::error::ClusterError;
use crate::names::{DatabaseName, RoleName};
use sqlx::{Executor, FromRow, PgConnection};

/// A database as the catalog has it.
#[derive(Debug, FromRow)]
pub(crate) struct DatabaseFacts {
    pub(crate) owner: String,
    /// Whether anybody can connect to it.
    pub(crate) is_open: bool,
    /// -2: a drop was interrupted, and nothing but a drop works.
    pub(crate) connection_limit: i32,
}

/// A role or the database of these names that is there, whoever made it: its kind and name.
pub(crate) async fn taken(
    session: &mut PgConnection, roles: [&RoleName; 4], database: &DatabaseName,
) -> Result<Option<(&'static str, String)>, ClusterError> {
    const TAKEN: &str = "SELECT true, rolname::text FROM pg_roles WHERE rolname = ANY($1) \
        UNION ALL SELECT false, datname::text FROM pg_database WHERE datname = $2";
    let found = sqlx::query_as(TAKEN).bind(roles.map(|r| r.as_str())).bind(database.as_str());
    let found: Option<(bool, String)> =
        found.fetch_optional(session).await.map_err(ClusterError::sql("looking for names that are taken"))?;
    Ok(found.map(|(is_role, name)| (if is_role { "role" } else { "database" }, name)))
}

impl DatabaseFacts {
    /// The connection limit that the database has when no clean-up has opened it.
    pub(crate) fn own_limit(&self) -> i32 {
        if self.connection_limit == ddl::CLEAN_UP_LIMIT { -1 } else { self.connection_limit }
    }
}

/// A role as the catalog has it, and whether it is ours.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct RoleFacts {
    pub(crate) name: String,
    /// Whether our admin role made it: it has ADMIN on it. PostgreSQL 15 does not record who made a role; there the
    /// exact name, which stands in a placement or an intent, decides alone.
    pub(crate) is_ours: bool,
    /// SUPERUSER or CREATEROLE: such a role can undo whatever is refused to it.
    pub(crate) is_privileged: bool,
    /// Whether this version records who made a role: 16 and later.
    records_creator: bool,
    pub(crate) comment: Option<String>,
}

impl RoleFacts {
    /// Whether an operation of ours made it. Asked where a role is made, or its making undone: no placement vouches for it
    /// yet. On PostgreSQL 15 a role with another comment counts as made by another party then, and is left alone.
    pub(crate) fn is_made(&self, marker: &str) -> bool {
        if self.records_creator { self.is_ours } else { self.comment.as_deref() == Some(marker) }
    }
}

/// Those of `names` that exist as roles. The comment of a role never decides whether it is ours: any person may change
/// it.
pub(crate) async fn roles(
    session: &mut PgConnection, names: &[&RoleName], admin: &RoleName,
) -> Result<Vec<RoleFacts>, ClusterError> {
    const ROLES: &str = "SELECT r.rolname::text AS name, r.rolsuper OR r.rolcreaterole AS is_privileged, \
            shobj_description(r.oid, 'pg_authid') AS comment, \
            current_setting('server_version_num')::int >= 160000 AS records_creator, \
            current_setting('server_version_num')::int < 160000 OR EXISTS (SELECT FROM pg_auth_members m \
                WHERE m.roleid = r.oid AND m.admin_option \
                  AND m.member = (SELECT oid FROM pg_roles WHERE rolname = $2)) AS is_ours \
        FROM pg_roles r WHERE r.rolname = ANY($1)";
    let asked: Vec<&str> = names.iter().map(|n| n.as_str()).collect();
    let found = sqlx::query_as(ROLES).bind(asked).bind(admin.as_str()).fetch_all(session).await;
    found.map_err(ClusterError::sql("looking for roles"))
}

/// Those of `names` that exist, all of them made by operations of ours; else `Foreign` names the first one that is not.
pub(crate) async fn only_made<'a>(
    session: &mut PgConnection, names: &[&'a RoleName], admin: &RoleName, marker: &str,
) -> Result<Vec<&'a RoleName>, ClusterError> {
    let found = roles(session, names, admin).await?;
    if let Some(foreign) = found.iter().find(|r| !r.is_made(marker)) {
        return Err(ClusterError::Foreign { kind: "role", name: foreign.name.clone() });
    }
    Ok(names.iter().copied().filter(|n| found.iter().any(|f| f.name == n.as_str())).collect())
}

/// Those of `names` that exist, all of them ours; else `Foreign` names the first one that is not.
pub(crate) async fn only_ours<'a>(
    session: &mut PgConnection, names: &[&'a RoleName], admin: &RoleName,
) -> Result<Vec<&'a RoleName>, ClusterError> {
    let found = roles(session, names, admin).await?;
    if let Some(foreign) = found.iter().find(|r| !r.is_ours) {
        return Err(ClusterError::Foreign { kind: "role", name: foreign.name.clone() });
    }
    Ok(names.iter().copied().filter(|n| found.iter().any(|f| f.name == n.as_str())).collect())
}

/// Those of `names` that exist with this marker as their comment; `Foreign` names one that has another comment. For the
/// roles of a server's set-up, which no placement names.
pub(crate) async fn marked<'a>(
    session: &mut PgConnection, names: [&'a RoleName; 3], marker: &str,
) -> Result<Vec<&'a RoleName>, ClusterError> {
    const ROLES: &str = "SELECT rolname::text, shobj_description(oid, 'pg_authid') FROM pg_roles \
        WHERE rolname = ANY($1)";
    let asked = names.map(|n| n.as_str());
    let found: Vec<(String, Option<String>)> =
        sqlx::query_as(ROLES).bind(asked).fetch_all(session).await.map_err(ClusterError::sql("looking for roles"))?;
    match found.iter().find(|(_, comment)| comment.as_deref() != Some(marker)) {
        Some((name, _)) => Err(ClusterError::Foreign { kind: "role", name: name.clone() }),
        None => Ok(names.into_iter().filter(|n| found.iter().any(|(f, _)| f == n.as_str())).collect()),
    }
}

/// One database.
pub(crate) async fn database(
    session: &mut PgConnection, name: &DatabaseName,
) -> Result<Option<DatabaseFacts>, ClusterError> {
    const DATABASE: &str = "SELECT r.rolname::text AS owner, d.datallowconn AS is_open, \
            d.datconnlimit AS connection_limit \
        FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE d.datname = $1";
    let found = sqlx::query_as(DATABASE).bind(name.as_str()).fetch_optional(session).await;
    found.map_err(ClusterError::sql("looking for a database"))
}

/// Who a session is: `session_user`, `current_user`, `current_database()`.
pub(crate) async fn identity(session: &mut PgConnection) -> Result<(String, String, String), ClusterError> {
    const WHO: &str = "SELECT session_user::text, current_user::text, current_database()::text";
    // The simple protocol: one message there, one back.
    let found = session.fetch_one(sqlx::raw_sql(WHO)).await.and_then(|row| FromRow::from_row(&row));
    found.map_err(ClusterError::sql("asking who the session is"))
}

/// A prepared transaction. No session stands behind it: only its owner can end it, in its own database.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Prepared {
    pub(crate) gid: String,
    pub(crate) owner: String,
    pub(crate) database: String,
    /// Whether its database takes connections.
    pub(crate) is_open: bool,
}

/// The prepared transactions of these roles, in any database.
pub(crate) async fn prepared_by(
    session: &mut PgConnection, roles: &[&RoleName],
) -> Result<Vec<Prepared>, ClusterError> {
    const PREPARED: &str = "SELECT x.gid, x.owner::text AS owner, x.database::text AS database, \
            d.datallowconn AS is_open \
        FROM pg_prepared_xacts x JOIN pg_database d ON d.datname = x.database \
        WHERE x.owner = ANY($1::text[]::name[])";
    let roles: Vec<&str> = roles.iter().map(|r| r.as_str()).collect();
    let found = sqlx::query_as(PREPARED).bind(roles).fetch_all(session).await;
    found.map_err(ClusterError::sql("looking for prepared transactions"))
}

/// All prepared transactions in a database: each of them keeps it from being dropped.
pub(crate) async fn prepared_in(
    session: &mut PgConnection, database: &DatabaseName,
) -> Result<Vec<Prepared>, ClusterError> {
    const PREPARED: &str = "SELECT x.gid, x.owner::text AS owner, x.database::text AS database, \
            d.datallowconn AS is_open \
        FROM pg_prepared_xacts x JOIN pg_database d ON d.datname = x.database WHERE d.datname = $1";
    let found = sqlx::query_as(PREPARED).bind(database.as_str()).fetch_all(session).await;
    found.map_err(ClusterError::sql("looking for the prepared transactions of a database"))
}
