//! What is there. Static statements, on sessions whose search path is `pg_catalog`.
use crate::error::ClusterError;
use crate::ident::{DatabaseName, RoleName};
use sqlx::{Executor, FromRow, PgConnection};

/// A database as the catalog has it.
#[derive(Debug, FromRow)]
pub(crate) struct DatabaseFacts {
    pub(crate) owner: String,
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

/// Those of `names` that are roles with this marker. A role of another marker is `Foreign` if `strict`.
pub(crate) async fn ours<'a>(
    session: &mut PgConnection, names: impl IntoIterator<Item = &'a RoleName>, marker: &str, strict: bool,
) -> Result<Vec<&'a RoleName>, ClusterError> {
    const ROLES: &str = "SELECT rolname, shobj_description(oid, 'pg_authid') AS marker FROM pg_roles \
        WHERE rolname = ANY($1)";
    let names: Vec<&RoleName> = names.into_iter().collect();
    let asked: Vec<&str> = names.iter().map(|n| n.as_str()).collect();
    let found: Vec<(String, Option<String>)> =
        sqlx::query_as(ROLES).bind(asked).fetch_all(session).await.map_err(ClusterError::sql("looking for roles"))?;
    let foreign = found.iter().find(|(_, m)| m.as_deref() != Some(marker));
    if let (Some((name, _)), true) = (foreign, strict) {
        return Err(ClusterError::Foreign { kind: "role", name: name.clone() });
    }
    let is_ours = |n: &&RoleName| found.iter().any(|(f, m)| f == n.as_str() && m.as_deref() == Some(marker));
    Ok(names.into_iter().filter(is_ours).collect())
}

/// One database.
pub(crate) async fn database(
    session: &mut PgConnection, name: &DatabaseName,
) -> Result<Option<DatabaseFacts>, ClusterError> {
    const DATABASE: &str = "SELECT r.rolname::text AS owner, d.datconnlimit AS connection_limit \
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

/// Prepared transactions of a database: each keeps it from being dropped. `(gid, owner)`.
pub(crate) async fn prepared(
    session: &mut PgConnection, database: &DatabaseName,
) -> Result<Vec<(String, String)>, ClusterError> {
    const PREPARED: &str = "SELECT gid::text, owner::text FROM pg_prepared_xacts WHERE database = $1";
    let found = sqlx::query_as(PREPARED).bind(database.as_str()).fetch_all(session).await;
    found.map_err(ClusterError::sql("looking for prepared transactions"))
}
