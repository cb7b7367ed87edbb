//! Sessions and prepared transactions that hold the object of a database locked, and so keep it from being dropped. Any
//! tenant of the server can do that to any database: `ALTER ROLE CURRENT_USER IN DATABASE <other> SET …` in an open
//! transaction.
use super::ddl;
use crate::error::ClusterError;
use crate::names::{DatabaseName, RoleName};
use crate::server::DatabaseServer;
use crate::sqlstate;
use sqlx::{FromRow, PgConnection};

/// A session that holds the object.
#[derive(Debug, FromRow)]
struct Holder {
    pid: i32,
    login: Option<String>,
    /// Whether we may end it as it is.
    is_member: bool,
}

/// Tells every session to end that holds the database's object locked.
///
/// # Errors
/// `InUse` names a session that we may not end.
pub(crate) async fn end_holders(
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
        if !end(session, holder.pid, &login, holder.is_member, admin).await? {
            let by = format!("process {} ({login})", holder.pid);
            return Err(ClusterError::InUse { database: database.to_string(), by });
        }
    }
    Ok(())
}

/// Tells every session in this database to end that belongs to a role of ours; others are left alone.
pub(crate) async fn end_sessions_in(
    session: &mut PgConnection, database: &str, server: &DatabaseServer, admin: &RoleName,
) -> Result<(), ClusterError> {
    const INSIDE: &str = "SELECT a.pid, a.usename::text AS login, pg_has_role(a.usesysid, 'USAGE') AS is_member \
        FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid \
        WHERE a.datname = $1 AND NOT r.rolsuper AND r.rolname <> ALL($2)";
    let own = [server.names.blue.as_str(), server.names.green.as_str()];
    let found = sqlx::query_as(INSIDE).bind(database).bind(own.as_slice()).fetch_all(&mut *session).await;
    let found: Vec<Holder> = found.map_err(ClusterError::sql("looking for sessions of a neighbour"))?;
    for holder in found {
        let login = holder.login.unwrap_or_default();
        end(session, holder.pid, &login, holder.is_member, admin).await?;
    }
    Ok(())
}

/// Whether it was told to end; `false` if we may not.
async fn end(
    session: &mut PgConnection, pid: i32, login: &str, is_member: bool, admin: &RoleName,
) -> Result<bool, ClusterError> {
    let ended = match (is_member, login.parse::<RoleName>()) {
        (false, Ok(role)) => ddl::terminate_as_member(pid, &role, admin).execute(session).await,
        _ => sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(&mut *session).await.map(drop),
    };
    match ended {
        Ok(()) => Ok(true),
        Err(e) if sqlstate::is_contended(&e) || sqlstate::is(&e, sqlstate::INSUFFICIENT_PRIVILEGE) => {
            ddl::roll_back().run(session, "rolling back").await?;
            Ok(sqlstate::is_contended(&e))
        }
        Err(source) => Err(ClusterError::Sql { phase: "ending a session that locks the database", source }),
    }
}

/// A prepared transaction that holds the database's object locked.
#[derive(Debug, FromRow)]
pub(crate) struct PreparedHolder {
    pub(crate) gid: String,
    pub(crate) owner: String,
    /// Where it was prepared, which is where it can be rolled back.
    pub(crate) database: String,
}

/// Those of any tenant. `pg_locks` shows no process for them; the lock on their own transaction's number, which stands
/// under the same virtual transaction, tells which one it is.
pub(crate) async fn prepared_holders(
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
