//! CONNECTION LIMIT of logins: how many sessions each may have, over all nodes.
//!
//! Used by `LockedSession` (`worker::LockedSession`) on the provisioner's session. Only what differs is altered, and LOGIN or
//! NOLOGIN is never touched, so a suspended tenant stays suspended.
use super::ddl;
use crate::error::ClusterError;
use crate::names::RoleName;
use crate::server::LoginSessions;
use crate::sqlstate;
use sqlx::PgConnection;

/// Those of these logins that exist and have another limit.
pub(crate) async fn differing<'a>(
    session: &mut PgConnection, logins: &'a [RoleName], limit: i32,
) -> Result<Vec<&'a RoleName>, ClusterError> {
    const DIFFERING: &str = "SELECT rolname::text FROM pg_roles WHERE rolname = ANY($1) AND rolconnlimit <> $2";
    let names: Vec<&str> = logins.iter().map(|login| login.as_str()).collect();
    let found = sqlx::query_scalar(DIFFERING).bind(names).bind(limit).fetch_all(session).await;
    let found: Vec<String> = found.map_err(ClusterError::sql("reading connection limits"))?;
    Ok(logins.iter().filter(|login| found.iter().any(|name| name == login.as_str())).collect())
}

/// Sets the limit of one login. `Some`: the server refused, for a reason that concerns this login alone (it is gone, its
/// row is locked or was changed at this moment, it is not ours); the session is usable.
///
/// It waits a second at most: a tenant can hold the row of its own login locked.
pub(crate) async fn set(
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

/// What a login may have and has; `None` if it does not exist.
pub(crate) async fn sessions(session: &mut PgConnection, login: &str) -> Result<Option<LoginSessions>, ClusterError> {
    const SESSIONS: &str = "SELECT r.rolconnlimit AS limit,
        (SELECT count(*) FROM pg_stat_activity a WHERE a.usesysid = r.oid) AS sessions
        FROM pg_roles r WHERE r.rolname = $1";
    let found = sqlx::query_as(SESSIONS).bind(login).fetch_optional(session).await;
    found.map_err(ClusterError::sql("counting the sessions of a login"))
}
