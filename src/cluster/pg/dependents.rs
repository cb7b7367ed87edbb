//! Objects and grants in other databases that keep a tenant's role from being dropped.
//!
//! They are large objects that the login created in a database to which PUBLIC may connect, and grants from a neighbour
//! tenant. `pg_shdepend` names the databases. `LockedSession` opens a session in each of them for the clean-up, after
//! the checks of this module have shown that no code of a tenant would run there.
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
    /// Whether it accepts connections.
    pub(crate) is_open: bool,
    /// Whether the admin role owns it.
    pub(crate) is_ours: bool,
    /// Roles that own the same objects or have rights on them. Each grant was made by one of them.
    pub(crate) grantors: Vec<String>,
}

/// Finds the databases in which an object or grant depends on this role.
pub(crate) async fn find_dependent_databases(
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
    found.map_err(ClusterError::sql("looking for objects that depend on a role"))
}

/// Finds the schemas of the current database in which something was granted to this role itself: the schema, a table, a
/// column, a sequence or a function.
pub(crate) async fn find_granted_schemas(
    session: &mut PgConnection, role: &RoleName,
) -> Result<Vec<String>, ClusterError> {
    const SCHEMAS: &str = "WITH granted AS (SELECT s.classid, s.objid FROM pg_shdepend s \
            JOIN pg_database d ON d.oid = s.dbid AND d.datname = current_database() \
            JOIN pg_roles r ON r.oid = s.refobjid AND r.rolname = $1 \
            WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype = 'a') \
        SELECT DISTINCT n.nspname::text FROM pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
          AND (EXISTS (SELECT FROM granted g WHERE g.classid = 'pg_namespace'::regclass AND g.objid = n.oid) \
            OR EXISTS (SELECT FROM granted g JOIN pg_class c ON c.oid = g.objid AND g.classid = 'pg_class'::regclass \
                WHERE c.relnamespace = n.oid) \
            OR EXISTS (SELECT FROM granted g JOIN pg_proc p ON p.oid = g.objid AND g.classid = 'pg_proc'::regclass \
                WHERE p.pronamespace = n.oid)) ORDER BY 1";
    let found = sqlx::query_scalar(SCHEMAS).bind(role.as_str()).fetch_all(session).await;
    found.map_err(ClusterError::sql("looking for rights of a login"))
}

/// Verifies, in a session in that database, that it has no enabled event trigger, whose function would run with the
/// provisioner's rights.
///
/// # Errors
/// `EventTrigger` names an enabled event trigger.
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

/// Verifies that only superusers and the provisioner could connect to this closed database if it were opened.
///
/// # Errors
/// `StillOpen` names the other roles that could.
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
        .map_err(ClusterError::sql("looking for roles that could connect to a closed database"))?;
    match found.is_empty() {
        true => Ok(()),
        false => Err(ClusterError::StillOpen { database: database.into(), roles: found.join(", ") }),
    }
}

/// Closes the databases that dead workers have opened for a clean-up. It finds them by their connection limit.
pub(crate) async fn close_databases_left_open(
    session: &mut PgConnection, admin: &RoleName,
) -> Result<(), ClusterError> {
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
            // Another worker has closed or dropped the database in the meantime.
            Err(e) if sqlstate::is_contended(&e) || sqlstate::is(&e, sqlstate::INVALID_CATALOG_NAME) => {}
            closed => closed.map_err(ClusterError::sql("closing a database again"))?,
        }
    }
    Ok(())
}
