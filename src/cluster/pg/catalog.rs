//! Reading roles, databases and prepared transactions from the system catalogs.
//!
//! All statements are constants with bind parameters. They run on sessions whose search path is `pg_catalog`, so that
//! no object of a tenant can take the place of a catalog table or function.
use super::ddl;
use crate::error::ClusterError;
use crate::names::{DatabaseName, RoleName};
use sqlx::{Executor, FromRow, PgConnection};
use std::time::Duration;

/// A database, as `pg_database` describes it.
#[derive(Debug, FromRow)]
pub(crate) struct DatabaseFacts {
    pub(crate) owner: String,
    /// Whether it accepts connections (`datallowconn`).
    pub(crate) is_open: bool,
    /// CONNECTION LIMIT. -2 means that a DROP DATABASE was interrupted; then the database can only be dropped.
    pub(crate) connection_limit: i32,
}

/// Finds a role or database that has one of these names, of any owner. Returns its kind and name.
pub(crate) async fn find_name_conflict(
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
    /// The connection limit, or -1 (none) if the current limit is the marker of a clean-up.
    pub(crate) fn own_limit(&self) -> i32 {
        if self.connection_limit == ddl::CLEAN_UP_LIMIT { -1 } else { self.connection_limit }
    }
}

/// A role, as the catalogs describe it, and whether this installation created it.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct RoleFacts {
    pub(crate) name: String,
    /// Whether the admin role has the ADMIN option on it, which the creator of a role gets. Always true on PostgreSQL
    /// 15, which does not record the creator: there the exact name, from a placement or an intent, decides alone.
    pub(crate) is_ours: bool,
    /// Whether it has SUPERUSER or CREATEROLE. Such a role can undo a refusal.
    pub(crate) is_privileged: bool,
    /// Whether this PostgreSQL version records the creator of a role (16 and later).
    records_creator: bool,
    pub(crate) comment: Option<String>,
}

impl RoleFacts {
    /// Whether this installation created it for the tenant of `marker`. For creating a role and for undoing that, when
    /// no placement names the role yet. On PostgreSQL 15 the comment decides, so a role with another comment is left
    /// alone.
    pub(crate) fn is_made(&self, marker: &str) -> bool {
        if self.records_creator { self.is_ours } else { self.comment.as_deref() == Some(marker) }
    }
}

/// Reads those of `names` that exist as roles. From PostgreSQL 16 on the comment never decides whether a role is ours,
/// because an administrator may change it.
pub(crate) async fn find_roles(
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

/// Returns those of `names` that exist, if this installation created all of them (see [`RoleFacts::is_made`]).
///
/// # Errors
/// `Foreign` names a role that it did not create.
pub(crate) async fn find_made_roles<'a>(
    session: &mut PgConnection, names: &[&'a RoleName], admin: &RoleName, marker: &str,
) -> Result<Vec<&'a RoleName>, ClusterError> {
    let found = find_roles(session, names, admin).await?;
    if let Some(foreign) = found.iter().find(|r| !r.is_made(marker)) {
        return Err(ClusterError::Foreign { kind: "role", name: foreign.name.clone() });
    }
    Ok(names.iter().copied().filter(|n| found.iter().any(|f| f.name == n.as_str())).collect())
}

/// Returns those of `names` that exist, if the admin role has the ADMIN option on all of them.
///
/// # Errors
/// `Foreign` names a role without it.
pub(crate) async fn find_own_roles<'a>(
    session: &mut PgConnection, names: &[&'a RoleName], admin: &RoleName,
) -> Result<Vec<&'a RoleName>, ClusterError> {
    let found = find_roles(session, names, admin).await?;
    if let Some(foreign) = found.iter().find(|r| !r.is_ours) {
        return Err(ClusterError::Foreign { kind: "role", name: foreign.name.clone() });
    }
    Ok(names.iter().copied().filter(|n| found.iter().any(|f| f.name == n.as_str())).collect())
}

/// Returns those of `names` that exist, if all of them have this marker as their comment. For the roles of a server's
/// set-up, which no placement names.
///
/// # Errors
/// `Foreign` names a role that has another comment.
pub(crate) async fn find_marked_roles<'a>(
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

/// Reads one database; `None` if it does not exist.
pub(crate) async fn find_database(
    session: &mut PgConnection, name: &DatabaseName,
) -> Result<Option<DatabaseFacts>, ClusterError> {
    const DATABASE: &str = "SELECT r.rolname::text AS owner, d.datallowconn AS is_open, \
            d.datconnlimit AS connection_limit \
        FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE d.datname = $1";
    let found = sqlx::query_as(DATABASE).bind(name.as_str()).fetch_optional(session).await;
    found.map_err(ClusterError::sql("looking for a database"))
}

/// Reads `session_user`, `current_user` and `current_database()` of a session.
pub(crate) async fn read_identity(session: &mut PgConnection) -> Result<(String, String, String), ClusterError> {
    const WHO: &str = "SELECT session_user::text, current_user::text, current_database()::text";
    // The simple query protocol needs one round trip; a prepared statement needs two.
    let found = session.fetch_one(sqlx::raw_sql(WHO)).await.and_then(|row| FromRow::from_row(&row));
    found.map_err(ClusterError::sql("reading the identity of a session"))
}

/// A prepared transaction. It has no session that could be terminated. Only its owner can end it, in its own database.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Prepared {
    pub(crate) gid: String,
    pub(crate) owner: String,
    pub(crate) database: String,
    /// Whether its database accepts connections.
    pub(crate) is_open: bool,
}

/// Finds the prepared transactions of these roles, in all databases.
pub(crate) async fn find_prepared_by(
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

/// Finds all prepared transactions in a database. Each of them keeps the database from being dropped.
pub(crate) async fn find_prepared_in(
    session: &mut PgConnection, database: &DatabaseName,
) -> Result<Vec<Prepared>, ClusterError> {
    const PREPARED: &str = "SELECT x.gid, x.owner::text AS owner, x.database::text AS database, \
            d.datallowconn AS is_open \
        FROM pg_prepared_xacts x JOIN pg_database d ON d.datname = x.database WHERE d.datname = $1";
    let found = sqlx::query_as(PREPARED).bind(database.as_str()).fetch_all(session).await;
    found.map_err(ClusterError::sql("looking for the prepared transactions of a database"))
}

/// The time after this duration by the server's clock, as a literal of a timestamp with time zone.
pub(crate) async fn time_after(session: &mut PgConnection, after: Duration) -> Result<String, ClusterError> {
    const TIME: &str = "SELECT to_char((clock_timestamp() + make_interval(secs => $1)) AT TIME ZONE 'UTC', \
        'YYYY-MM-DD HH24:MI:SS.US\"+00\"')";
    let time = sqlx::query_scalar(TIME).bind(after.as_secs_f64()).fetch_one(session).await;
    time.map_err(ClusterError::sql("reading the server's clock"))
}
