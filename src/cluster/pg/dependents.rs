//! What keeps a role from being dropped in other databases than its tenant's own: large objects that its login made where
//! PUBLIC may connect, and grants that a neighbour gave it to be in its way. `pg_shdepend` names the databases.
use super::ddl;
use crate::error::ClusterError;
use crate::names::RoleName;
use crate::server::DatabaseServer;
use crate::sqlstate;
use sqlx::{FromRow, PgConnection};

/// A database in which something depends on a role.
#[derive(Debug, FromRow)]
pub(crate) struct DependentDatabase {
    pub(crate) database: String,
    /// Whether it takes connections.
    pub(crate) is_open: bool,
    /// Whether our admin role owns it.
    pub(crate) is_ours: bool,
    /// Roles that own, or were granted, the same objects: one of them is the grantor of each grant.
    pub(crate) grantors: Vec<String>,
}

/// Where something depends on this role.
pub(crate) async fn dependent_databases(
    session: &mut PgConnection, role: &RoleName, admin: &RoleName,
) -> Result<Vec<DependentDatabase>, ClusterError> {
    const PLACES: &str = "SELECT d.datname::text AS database, d.datallowconn AS is_open, o.rolname = $2 AS is_ours, \
            ARRAY(SELECT DISTINCT g.rolname::text \
                FROM pg_shdepend own JOIN pg_shdepend same USING (dbid, classid, objid) \
                    JOIN pg_roles g ON g.oid = same.refobjid \
                WHERE own.refclassid = 'pg_authid'::regclass AND own.refobjid = r.oid AND own.dbid = d.oid \
                  AND same.refclassid = 'pg_authid'::regclass AND same.refobjid <> r.oid ORDER BY 1) AS grantors \
        FROM pg_roles r, pg_database d JOIN pg_roles o ON o.oid = d.datdba \
        WHERE r.rolname = $1 AND d.oid IN (SELECT s.dbid FROM pg_shdepend s \
            WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid)";
    let found = sqlx::query_as(PLACES).bind(role.as_str()).bind(admin.as_str()).fetch_all(session).await;
    found.map_err(ClusterError::sql("looking for what depends on a role"))
}

/// In a session in that database: nothing there would run code of a tenant with our rights.
///
/// # Errors
/// `EventTrigger` names an enabled one.
pub(crate) async fn verify_no_event_trigger(session: &mut PgConnection, database: &str) -> Result<(), ClusterError> {
    const TRIGGER: &str = "SELECT evtname::text FROM pg_event_trigger WHERE evtenabled <> 'D' ORDER BY 1 LIMIT 1";
    let found: Option<String> = sqlx::query_scalar(TRIGGER)
        .fetch_optional(session)
        .await
        .map_err(ClusterError::sql("looking for event triggers"))?;
    match found {
        Some(trigger) => Err(ClusterError::EventTrigger { database: database.into(), trigger }),
        None => Ok(()),
    }
}

/// Verifies that only superusers and the provisioner could enter this closed database if it were open.
///
/// # Errors
/// `StillOpen` names the roles that could.
pub(crate) async fn verify_logins_refused(
    session: &mut PgConnection, database: &str, server: &DatabaseServer,
) -> Result<(), ClusterError> {
    const ENTRANTS: &str = "SELECT r.rolname::text FROM pg_database d \
        JOIN pg_roles r ON r.rolcanlogin AND NOT r.rolsuper AND has_database_privilege(r.oid, d.oid, 'CONNECT') \
        WHERE d.datname = $1 AND r.rolname <> ALL($2) ORDER BY 1";
    let own = [server.names.blue.as_str(), server.names.green.as_str()];
    let found: Vec<String> = sqlx::query_scalar(ENTRANTS)
        .bind(database)
        .bind(own.as_slice())
        .fetch_all(session)
        .await
        .map_err(ClusterError::sql("looking for roles that could enter a closed database"))?;
    match found.is_empty() {
        true => Ok(()),
        false => Err(ClusterError::StillOpen { database: database.into(), roles: found.join(", ") }),
    }
}

/// Closes databases again that a worker has opened for a clean-up before it died.
pub(crate) async fn close_left_open(session: &mut PgConnection, admin: &RoleName) -> Result<(), ClusterError> {
    const LEFT: &str = "SELECT d.datname::text FROM pg_database d JOIN pg_roles o ON o.oid = d.datdba \
        WHERE o.rolname = $1 AND d.datallowconn AND d.datconnlimit = $2";
    let left: Vec<String> = sqlx::query_scalar(LEFT)
        .bind(admin.as_str())
        .bind(ddl::CLEAN_UP_LIMIT)
        .fetch_all(&mut *session)
        .await
        .map_err(ClusterError::sql("looking for databases that were left open"))?;
    for database in left {
        match ddl::close_after_clean_up(&database, -1).execute(session).await {
            // Another worker was faster, or has dropped the database.
            Err(e) if sqlstate::is_contended(&e) || sqlstate::is(&e, sqlstate::INVALID_CATALOG_NAME) => {}
            closed => closed.map_err(ClusterError::sql("closing a database again"))?,
        }
    }
    Ok(())
}
