//! The sessions of a tenant that is shut out: this module signals them and counts them until none is left.
use super::terminate;
use crate::error::ClusterError;
use crate::names::{DatabaseName, RoleName};
use crate::server::DatabaseServer;
use sqlx::{FromRow, PgConnection};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_millis(50);
const SIGNAL_AGAIN: Duration = Duration::from_secs(1);

/// Whose sessions count.
#[derive(Clone, Copy)]
pub(crate) struct Tenant<'a> {
    pub(crate) database: &'a DatabaseName,
    /// Its roles: their sessions count in every database.
    pub(crate) roles: &'a [&'a RoleName],
    /// Sessions of its blue and green login and of its allowed roles do not count.
    pub(crate) server: &'a DatabaseServer,
    /// Nor do those of logins of operations of ours that are open now.
    pub(crate) exempt: &'a [RoleName],
}

/// A session that is left.
#[derive(Debug, FromRow)]
pub(crate) struct Session {
    pid: i32,
    login: Option<String>,
}

/// Tells the tenant's sessions to end until none is left, for at most `limit`. Returns those that are left.
pub(crate) async fn end_sessions(
    session: &mut PgConnection, tenant: Tenant<'_>, limit: Duration,
) -> Result<Vec<Session>, ClusterError> {
    let (begun, mut signalled, mut look) = (Instant::now(), None::<Instant>, LOOK);
    loop {
        let signal = signalled.is_none_or(|at| at.elapsed() >= SIGNAL_AGAIN);
        if signal {
            signalled = Some(Instant::now());
            terminate::end_connecting(session, tenant.database).await?;
        }
        let left = left(session, tenant, signal).await?;
        if left.is_empty() || begun.elapsed() >= limit {
            return Ok(left);
        }
        sleep(look).await;
        look = (look * 2).min(LONGEST_LOOK);
    }
}

/// Who is in, for people.
pub(crate) fn list(sessions: &[Session]) -> String {
    let one = |s: &Session| format!("process {} ({})", s.pid, s.login.as_deref().unwrap_or("connecting"));
    sessions.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The tenant's sessions, and in its database those of everybody but superusers and the exempt. A session that is still
/// connecting to the database shows no login; it counts.
async fn left(session: &mut PgConnection, tenant: Tenant<'_>, signal: bool) -> Result<Vec<Session>, ClusterError> {
    const LEFT: &str = "WITH theirs AS (SELECT a.pid, a.usename::text AS login, a.usesysid \
            FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid \
            WHERE a.usesysid = ANY(ARRAY(SELECT oid FROM pg_roles WHERE rolname = ANY($2))) \
               OR a.datname = $1 AND a.usesysid IS NOT NULL AND NOT coalesce(r.rolsuper, false) \
                  AND coalesce(r.rolname <> ALL($3::text[]::name[]), true)), \
        told AS MATERIALIZED (SELECT count(pg_terminate_backend(pid)) FROM theirs \
            WHERE $4 AND (pg_has_role(usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'))) \
        SELECT pid, login FROM theirs, told \
        UNION ALL SELECT DISTINCT l.pid, NULL FROM pg_locks l JOIN pg_database d ON d.oid = l.objid \
            WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND d.datname = $1 \
              AND l.pid IS NOT NULL \
              AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.usesysid IS NOT NULL)";
    let names = &tenant.server.names;
    let own = [&names.blue, &names.green].into_iter();
    let exempt: Vec<&str> = own.chain(&tenant.server.allowed_roles).chain(tenant.exempt).map(|r| r.as_str()).collect();
    let roles: Vec<&str> = tenant.roles.iter().map(|r| r.as_str()).collect();
    let left = sqlx::query_as(LEFT).bind(tenant.database.as_str()).bind(roles).bind(exempt).bind(signal);
    left.fetch_all(session).await.map_err(ClusterError::sql("counting the sessions of a tenant"))
}
