//! CONNECTION LIMIT of logins: the maximum number of sessions of each login, over all nodes.
//!
//! `LockedSession` calls these functions with the provisioner's session. Only a limit that differs is altered. LOGIN
//! and NOLOGIN are never changed, so a suspended tenant stays suspended.
use super::ddl;
use crate::error::ClusterError;
use crate::names::RoleName;
use crate::server::LoginSessions;
use crate::sqlstate;
use sqlx::PgConnection;

/// Returns those of these logins that exist and have another limit.
pub(crate) async fn find_differing<'a>(
    session: &mut PgConnection, logins: &'a [RoleName], limit: i32,
) -> Result<Vec<&'a RoleName>, ClusterError> {
    const DIFFERING: &str = "SELECT rolname::text FROM pg_roles WHERE rolname = ANY($1) AND rolconnlimit <> $2";
    let names: Vec<&str> = logins.iter().map(|login| login.as_str()).collect();
    let found = sqlx::query_scalar(DIFFERING).bind(names).bind(limit).fetch_all(session).await;
    let found: Vec<String> = found.map_err(ClusterError::sql("reading connection limits"))?;
    Ok(logins.iter().filter(|login| found.iter().any(|name| name == login.as_str())).collect())
}

/// Sets the limit of one login. `Some` is PostgreSQL's error if the reason concerns this login only: it does not exist,
/// its row is locked or was just changed, or it is not one of ours. The session is usable then.
///
/// Waits at most a second, because a tenant can keep the row of its own login locked.
pub(crate) async fn set_limit(
    session: &mut PgConnection, login: &RoleName, limit: i32,
) -> Result<Option<sqlx::Error>, ClusterError> {
    match ddl::limit_login(login, limit).execute(session).await {
        Ok(()) => Ok(None),
        Err(error @ sqlx::Error::Database(_)) if !sqlstate::is_connection_lost(&error) => {
            ddl::roll_back().run(session, "rolling back").await?;
            Ok(Some(error))
        }
        Err(source) => Err(ClusterError::Sql { phase: "setting a connection limit", source }),
    }
}

/// Reads the connection limit of a login and its number of sessions; `None` if it does not exist.
pub(crate) async fn read_login_sessions(
    session: &mut PgConnection, login: &str,
) -> Result<Option<LoginSessions>, ClusterError> {
    const SESSIONS: &str = "SELECT r.rolconnlimit AS limit,
        (SELECT count(*) FROM pg_stat_activity a WHERE a.usesysid = r.oid) AS sessions
        FROM pg_roles r WHERE r.rolname = $1";
    let found = sqlx::query_as(SESSIONS).bind(login).fetch_optional(session).await;
    found.map_err(ClusterError::sql("counting the sessions of a login"))
}
