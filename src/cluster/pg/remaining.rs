//! Signalling and counting the sessions of a closed tenant until none is left.
//!
//! Closing a tenant uses it; the caller sets how long to wait and reports the sessions that are left. A session that is
//! still connecting counts as a session.
use super::terminate;
use crate::error::ClusterError;
use crate::names::{DatabaseName, RoleName};
use crate::server::DatabaseServer;
use sqlx::{FromRow, PgConnection};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// First interval between two polls; it doubles up to [`MAX_POLL`].
const POLL: Duration = Duration::from_millis(5);
const MAX_POLL: Duration = Duration::from_millis(50);
/// Interval after which sessions that are still there are signalled again.
const SIGNAL_AGAIN: Duration = Duration::from_secs(1);

/// Which sessions count as the tenant's.
#[derive(Clone, Copy)]
pub(crate) struct Tenant<'a> {
    /// All sessions in this database count, except those of superusers and exempt roles.
    pub(crate) database: &'a DatabaseName,
    /// The tenant's roles. Their sessions count in every database.
    pub(crate) roles: &'a [&'a RoleName],
    /// Sessions of its provisioner logins and of its allowed roles do not count.
    pub(crate) server: &'a DatabaseServer,
    /// Logins of other open operations of this crate. Their sessions do not count.
    pub(crate) exempt: &'a [RoleName],
}

/// A session that has not ended yet.
#[derive(Debug, FromRow)]
pub(crate) struct Session {
    pid: i32,
    /// `None` while the session is still connecting.
    login: Option<String>,
}

/// Signals the tenant's sessions, every second, until none is left or `limit` is over. Returns the sessions that are
/// left.
pub(crate) async fn terminate_sessions(
    session: &mut PgConnection, tenant: Tenant<'_>, limit: Duration,
) -> Result<Vec<Session>, ClusterError> {
    let (started, mut signalled, mut poll) = (Instant::now(), None::<Instant>, POLL);
    loop {
        let signal = signalled.is_none_or(|at| at.elapsed() >= SIGNAL_AGAIN);
        if signal {
            signalled = Some(Instant::now());
            terminate::terminate_connecting_sessions(session, tenant.database).await?;
        }
        let left = list_and_signal(session, tenant, signal).await?;
        if left.is_empty() || started.elapsed() >= limit {
            return Ok(left);
        }
        sleep(poll).await;
        poll = (poll * 2).min(MAX_POLL);
    }
}

/// Lists the sessions for an error message.
pub(crate) fn describe(sessions: &[Session]) -> String {
    let one = |s: &Session| format!("process {} ({})", s.pid, s.login.as_deref().unwrap_or("connecting"));
    sessions.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Lists the sessions that count (see [`Tenant`]) and, if `signal` is set, terminates those that the provisioner may
/// terminate. A session that is still connecting to the database has no login yet; it counts.
async fn list_and_signal(
    session: &mut PgConnection, tenant: Tenant<'_>, signal: bool,
) -> Result<Vec<Session>, ClusterError> {
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
