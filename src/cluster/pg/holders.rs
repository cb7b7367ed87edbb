//! Finding and ending sessions and prepared transactions that lock the object of a database.
//!
//! Such a lock keeps the database from being dropped, so dropping a tenant uses this module. Any tenant of the server
//! can take it on any database: `ALTER ROLE CURRENT_USER IN DATABASE <other> SET …` in an open transaction.
use super::ddl;
use crate::error::ClusterError;
use crate::names::{DatabaseName, RoleName};
use crate::server::DatabaseServer;
use crate::sqlstate;
use sqlx::{FromRow, PgConnection};

/// A session that is to be terminated.
#[derive(Debug, FromRow)]
struct Holder {
    pid: i32,
    login: Option<String>,
    /// Whether the admin role is a member of its login and so may terminate it.
    is_member: bool,
}

/// Signals every session that locks the database's object, of any tenant.
///
/// # Errors
/// `InUse` names a session that the provisioner may not terminate.
pub(crate) async fn terminate_holders(
    session: &mut PgConnection, database: &DatabaseName, admin: &RoleName,
) -> Result<(), ClusterError> {
    const HOLDERS: &str = "SELECT DISTINCT l.pid, a.usename::text AS login, \
            coalesce(pg_has_role(a.usesysid, 'USAGE'), false) AS is_member \
        FROM pg_locks l JOIN pg_database d ON d.oid = l.objid AND d.datname = $1 \
            JOIN pg_stat_activity a ON a.pid = l.pid \
        WHERE l.locktype = 'object' AND l.classid = 'pg_catalog.pg_database'::regclass AND l.granted \
          AND l.pid <> pg_backend_pid() AND a.usesysid IS NOT NULL";
    let found = sqlx::query_as(HOLDERS).bind(database.as_str()).fetch_all(&mut *session).await;
    let found: Vec<Holder> = found.map_err(ClusterError::sql("looking for sessions that lock the database"))?;
    for holder in found {
        let login = holder.login.unwrap_or_default();
        if !try_terminate(session, holder.pid, &login, holder.is_member, admin).await? {
            let by = format!("process {} ({login})", holder.pid);
            return Err(ClusterError::InUse { database: database.to_string(), by });
        }
    }
    Ok(())
}

/// Signals every session in this database that the provisioner may terminate; other sessions are left alone.
pub(crate) async fn terminate_sessions_in(
    session: &mut PgConnection, database: &str, server: &DatabaseServer, admin: &RoleName,
) -> Result<(), ClusterError> {
    const INSIDE: &str = "SELECT a.pid, a.usename::text AS login, pg_has_role(a.usesysid, 'USAGE') AS is_member \
        FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid \
        WHERE a.datname = $1 AND NOT r.rolsuper AND r.rolname <> ALL($2)";
    let own = [server.names.blue.as_str(), server.names.green.as_str()];
    let found = sqlx::query_as(INSIDE).bind(database).bind(own.as_slice()).fetch_all(&mut *session).await;
    let found: Vec<Holder> = found.map_err(ClusterError::sql("looking for sessions of a neighbour tenant"))?;
    for holder in found {
        let login = holder.login.unwrap_or_default();
        try_terminate(session, holder.pid, &login, holder.is_member, admin).await?;
    }
    Ok(())
}

/// Signals a session; `false` if the provisioner may not terminate it. Without a membership in its login, the admin
/// role takes one for this transaction. A contended row counts as signalled, since the caller tries again.
async fn try_terminate(
    session: &mut PgConnection, pid: i32, login: &str, is_member: bool, admin: &RoleName,
) -> Result<bool, ClusterError> {
    let signalled = match (is_member, login.parse::<RoleName>()) {
        (false, Ok(role)) => ddl::terminate_as_member(pid, &role, admin).execute(session).await,
        _ => sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(&mut *session).await.map(drop),
    };
    match signalled {
        Ok(()) => Ok(true),
        Err(e) if sqlstate::is_contended(&e) || sqlstate::is(&e, sqlstate::INSUFFICIENT_PRIVILEGE) => {
            ddl::roll_back().run(session, "rolling back").await?;
            Ok(sqlstate::is_contended(&e))
        }
        Err(source) => Err(ClusterError::Sql { phase: "terminating a session that locks the database", source }),
    }
}

/// A prepared transaction that locks the database's object.
#[derive(Debug, FromRow)]
pub(crate) struct PreparedHolder {
    pub(crate) gid: String,
    pub(crate) owner: String,
    /// The database in which it was prepared and where it can be rolled back.
    pub(crate) database: String,
}

/// Finds the prepared transactions, of any tenant, that lock the database's object. `pg_locks` shows no process for
/// them. The lock on their own transaction id has the same virtual transaction, which identifies the prepared
/// transaction.
pub(crate) async fn find_prepared_holders(
    session: &mut PgConnection, database: &DatabaseName,
) -> Result<Vec<PreparedHolder>, ClusterError> {
    const PREPARED: &str = "SELECT DISTINCT x.gid, x.owner::text AS owner, x.database::text AS database \
        FROM pg_locks l JOIN pg_database d ON d.oid = l.objid AND d.datname = $1 \
            JOIN pg_locks t ON t.virtualtransaction = l.virtualtransaction AND t.pid IS NULL \
                AND t.locktype = 'transactionid' \
            JOIN pg_prepared_xacts x ON x.transaction = t.transactionid \
        WHERE l.locktype = 'object' AND l.classid = 'pg_catalog.pg_database'::regclass AND l.pid IS NULL";
    let found = sqlx::query_as(PREPARED).bind(database.as_str()).fetch_all(session).await;
    found.map_err(ClusterError::sql("looking for prepared transactions that lock the database"))
}
