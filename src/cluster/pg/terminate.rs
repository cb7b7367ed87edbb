//! Terminating sessions: signal all of them at once, then poll `pg_stat_activity` until they are gone.
//!
//! Refusing logins, dropping a database and taking over from an earlier worker use it. Sessions that the provisioner
//! has no right to terminate are named in an error or left out of the wait, never waited for without limit.
use crate::cluster::pg::ddl;
use crate::error::ClusterError;
use crate::names::{DatabaseName, RoleName};
use crate::sqlstate;
use sqlx::PgConnection;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

/// How long to wait for signalled sessions.
const LIMIT: Duration = Duration::from_secs(30);
/// Interval between two polls.
const POLL: Duration = Duration::from_millis(5);
/// Delay before the first poll, shorter because most sessions end within a millisecond.
const FIRST_POLL: Duration = Duration::from_millis(1);
/// Interval after which a session that is still there is signalled again.
const SIGNAL_AGAIN: Duration = Duration::from_secs(1);
/// How long to wait for sessions that are connecting to another database than the tenant's.
const FOREIGN_CONNECTING_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait for sessions in the tenant's database that the provisioner may not terminate. One may be ending
/// already.
const FOREIGN_SESSION_LIMIT: Duration = Duration::from_secs(2);

/// A session that still exists: process id, login, result of `pg_terminate_backend`. The result is `None` if the query
/// did not signal, or if the provisioner may not terminate the session.
pub(crate) type Row = (i32, Option<String>, Option<bool>);

/// Signals every session of these logins, in all databases, and does not wait for them to end.
pub(crate) async fn signal_role_sessions(session: &mut PgConnection, logins: &[&RoleName]) -> Result<(), ClusterError> {
    list_and_signal(session, logins, true).await.map(drop)
}

/// Lists the sessions of these logins in all databases: process id, login, and `None`.
pub(crate) async fn list_role_sessions(
    session: &mut PgConnection, logins: &[&RoleName],
) -> Result<Vec<Row>, ClusterError> {
    list_and_signal(session, logins, false).await
}

/// Lists the sessions of these logins in all databases and, if `signal` is set, terminates them.
async fn list_and_signal(
    session: &mut PgConnection, logins: &[&RoleName], signal: bool,
) -> Result<Vec<Row>, ClusterError> {
    const BY_ROLE: &str = "SELECT pid, usename::text, CASE WHEN $2 THEN pg_terminate_backend(pid) END \
        FROM pg_stat_activity WHERE usesysid = ANY(SELECT oid FROM pg_roles WHERE rolname = ANY($1))";
    let names: Vec<&str> = logins.iter().map(|l| l.as_str()).collect();
    let left = sqlx::query_as(BY_ROLE).bind(names).bind(signal).fetch_all(session).await;
    left.map_err(ClusterError::sql("terminating sessions"))
}

/// Waits until this login has no session in any database; `false` if it still has one after `limit`.
pub(crate) async fn wait_until_idle(
    session: &mut PgConnection, login: &RoleName, limit: Duration,
) -> Result<bool, ClusterError> {
    const SESSIONS: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1)";
    let deadline = Instant::now() + limit;
    let mut poll = FIRST_POLL;
    loop {
        let left = sqlx::query_scalar(SESSIONS).bind(login.as_str()).fetch_one(&mut *session).await;
        if !left.map_err(ClusterError::sql("looking for sessions of a login"))? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(poll.min(deadline.saturating_duration_since(Instant::now()))).await;
        poll = (poll * 2).min(Duration::from_millis(100));
    }
}

/// Terminates every session of these logins, in all databases, and waits up to 30 s until they have ended. The admin
/// role must be a member of the logins, and the logins must be NOLOGIN.
///
/// # Errors
/// `InUse` names the sessions that are left.
pub(crate) async fn terminate_role_sessions(
    session: &mut PgConnection, logins: &[&RoleName],
) -> Result<(), ClusterError> {
    let mut pace = Pace::new();
    loop {
        let signal = pace.is_signal_due();
        let left = list_and_signal(session, logins, signal).await?;
        if left.is_empty() {
            return Ok(());
        }
        pace.wait("the server", || describe(&left)).await?;
    }
}

/// Timing of a wait for sessions: signal at once and again every second, poll every 5 ms, and give up after [`LIMIT`].
struct Pace {
    started: Instant,
    signalled: Option<Instant>,
    polls: u32,
}

impl Pace {
    fn new() -> Self {
        Self { started: Instant::now(), signalled: None, polls: 0 }
    }
    /// Whether to signal the sessions with this poll. If so, records that they were signalled.
    fn is_signal_due(&mut self) -> bool {
        let due = self.signalled.is_none_or(|at| at.elapsed() >= SIGNAL_AGAIN);
        if due {
            self.signalled = Some(Instant::now());
        }
        due
    }
    /// Sleeps until the next poll; fails with `InUse` when the time is over.
    async fn wait(&mut self, database: &str, by: impl FnOnce() -> String) -> Result<(), ClusterError> {
        if self.started.elapsed() >= LIMIT {
            return Err(ClusterError::InUse { database: database.into(), by: by() });
        }
        sleep(if self.polls == 0 { FIRST_POLL } else { POLL }).await;
        self.polls += 1;
        Ok(())
    }
}

fn describe(rows: &[Row]) -> String {
    let one = |(pid, user, _): &Row| format!("process {pid} ({})", user.as_deref().unwrap_or("unknown"));
    rows.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Waits for sessions that have passed authentication and show no login in `pg_stat_activity` yet. Call it before a
/// role is dropped: otherwise such a session could continue under a dropped role, and no query would find it.
///
/// Those in the tenant's database are terminated after `patience`; before that, one may turn out to use a login that
/// stays. Those in other databases are waited for at most 5 seconds, because any tenant's login can prolong this phase.
pub(crate) async fn wait_for_connecting_sessions(
    session: &mut PgConnection, database: &DatabaseName, patience: Duration,
) -> Result<(), ClusterError> {
    let found = list_connecting_sessions(session, database).await?;
    let (mut pace, mut now, mut is_terminated) = (Pace::new(), found.clone(), false);
    loop {
        let left: Vec<_> = found.iter().filter(|f| now.iter().any(|n| n.0 == f.0)).collect();
        if left.is_empty() {
            return Ok(());
        }
        if !is_terminated && pace.started.elapsed() >= patience {
            for (pid, _) in left.iter().filter(|(_, own)| *own) {
                terminate(session, *pid).await?;
            }
            is_terminated = true;
        }
        let pids = || left.iter().map(|(pid, _)| format!("process {pid} (connecting)")).collect::<Vec<_>>().join(", ");
        if left.iter().all(|(_, own)| !own) && pace.started.elapsed() >= FOREIGN_CONNECTING_LIMIT {
            tracing::warn!(
                sessions = pids(),
                "sessions are still connecting to other databases; not waiting any longer"
            );
            return Ok(());
        }
        pace.wait(database.as_str(), pids).await?;
        now = list_connecting_sessions(session, database).await?;
    }
}

/// Lists sessions that lock a database's object and show no login yet, with whether that is the given database. Others
/// count only in databases to which PUBLIC may connect.
pub(crate) async fn list_connecting_sessions(
    session: &mut PgConnection, database: &DatabaseName,
) -> Result<Vec<(i32, bool)>, ClusterError> {
    const CONNECTING: &str = "SELECT DISTINCT l.pid, d.datname = $1 AS own
      FROM pg_locks l
      JOIN pg_database d ON d.oid = l.objid
     WHERE l.locktype = 'object'
       AND l.classid = 'pg_catalog.pg_database'::regclass
       AND l.pid IS NOT NULL -- a prepared transaction has no process
       AND (d.datname = $1 OR has_database_privilege('public', d.oid, 'CONNECT'))
       AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.usesysid IS NOT NULL)";
    let found = sqlx::query_as(CONNECTING).bind(database.as_str()).fetch_all(session).await;
    found.map_err(ClusterError::sql("looking for sessions that are connecting"))
}

/// Terminates sessions that are still connecting to this database, and does not wait for them to end.
pub(crate) async fn terminate_connecting_sessions(
    session: &mut PgConnection, database: &DatabaseName,
) -> Result<(), ClusterError> {
    for (pid, own) in list_connecting_sessions(session, database).await? {
        if own {
            terminate(session, pid).await?;
        }
    }
    Ok(())
}

/// Terminates one session. 42501 is ignored, so that a session which the provisioner may not terminate does not keep
/// the caller from terminating the others.
async fn terminate(session: &mut PgConnection, pid: i32) -> Result<(), ClusterError> {
    match sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(session).await {
        Err(e) if sqlstate::is(&e, sqlstate::INSUFFICIENT_PRIVILEGE) => Ok(()),
        done => done.map(drop).map_err(ClusterError::sql("terminating a session")),
    }
}

/// A session in one of its transactions.
pub(crate) struct SameSession {
    pub(crate) pid: i32,
    /// Begin of the session, because PostgreSQL uses process ids again.
    pub(crate) started_at: OffsetDateTime,
    /// Begin of its transaction, because a later one of the same session blocks nothing. `None`: any transaction.
    pub(crate) transaction_at: Option<OffsetDateTime>,
}

type FindSession<'q> = sqlx::query::QueryScalar<'q, sqlx::Postgres, bool, sqlx::postgres::PgArguments>;

impl SameSession {
    /// Whether the session exists and is still in that transaction. Signals it if `signal` is set.
    pub(crate) fn find(&self, signal: bool) -> FindSession<'_> {
        const FIND: &str = "SELECT count(CASE WHEN $4 THEN pg_catalog.pg_terminate_backend(a.pid) ELSE true END) > 0 \
            FROM pg_catalog.pg_stat_activity a \
            WHERE a.pid = $1 AND a.backend_start = $2 AND ($3::timestamptz IS NULL OR a.xact_start = $3)";
        sqlx::query_scalar(FIND).bind(self.pid).bind(self.started_at).bind(self.transaction_at).bind(signal)
    }
}

/// Terminates a session if it is still in the same transaction. Waits until it has ended. Does nothing if it has ended
/// already.
///
/// # Errors
/// `InUse` if it has not ended after 30 s. 42501 if the provisioner may not terminate it.
pub(crate) async fn terminate_same_session(session: &mut PgConnection, same: &SameSession) -> Result<(), ClusterError> {
    let mut pace = Pace::new();
    loop {
        let found = same.find(pace.is_signal_due()).fetch_one(&mut *session).await;
        if !found.map_err(ClusterError::sql("terminating a session"))? {
            return Ok(());
        }
        pace.wait("the server", || format!("process {}", same.pid)).await?;
    }
}

/// Terminates every session in this database and waits until they have ended. The database must have been closed
/// before.
///
/// # Errors
/// `InUse` names sessions that the provisioner may not terminate, such as a superuser's psql or a backup.
pub(crate) async fn terminate_database_sessions(
    session: &mut PgConnection, database: &DatabaseName,
) -> Result<(), ClusterError> {
    const END: &str = "SELECT a.pid, a.usename::text,
           CASE WHEN pg_has_role(a.usesysid, 'USAGE') THEN NOT $2 OR pg_terminate_backend(a.pid) END
      FROM pg_stat_activity a WHERE a.datname = $1 AND a.usesysid IS NOT NULL";
    let mut pace = Pace::new();
    loop {
        let signal = pace.is_signal_due();
        let left = sqlx::query_as(END).bind(database.as_str()).bind(signal).fetch_all(&mut *session).await;
        let left: Vec<Row> = left.map_err(ClusterError::sql("terminating the sessions of a database"))?;
        if left.is_empty() {
            return Ok(());
        }
        let foreign: Vec<Row> = left.iter().filter(|r| r.2.is_none()).cloned().collect();
        if !foreign.is_empty() && pace.started.elapsed() >= FOREIGN_SESSION_LIMIT {
            return Err(ClusterError::InUse { database: database.to_string(), by: describe(&foreign) });
        }
        pace.wait(database.as_str(), || describe(&left)).await?;
    }
}

/// Terminates the sessions of earlier workers of an operation, in all databases, and waits until they have ended.
/// `prefix` is the beginning of their `application_name`, `tenantry/<operation>/`.
///
/// Runs as the login itself, because as the admin role it would fail with 42501. It covers sessions of the migrator if
/// the admin role is its member, and sessions of the other provisioner login if the admin role has `pg_signal_backend`.
/// Any other role may use such an `application_name`; its sessions are neither terminated nor waited for.
pub(crate) async fn terminate_worker_sessions(session: &mut PgConnection, prefix: &str) -> Result<(), ClusterError> {
    const WORKERS: &str = "SELECT a.pid, a.usename::text, CASE WHEN $2 THEN pg_terminate_backend(a.pid) END \
        FROM pg_stat_activity a WHERE starts_with(a.application_name, $1) AND a.pid <> pg_backend_pid() \
          AND (pg_has_role(a.usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE') AND a.usesysid IN ( \
              SELECT other.member FROM pg_auth_members other JOIN pg_auth_members mine USING (roleid) \
              WHERE mine.member = (SELECT oid FROM pg_roles WHERE rolname = session_user)))";
    become_login(session).await?;
    let mut pace = Pace::new();
    loop {
        let signal = pace.is_signal_due();
        let left = sqlx::query_as(WORKERS).bind(prefix).bind(signal).fetch_all(&mut *session).await;
        let left: Vec<Row> = left.map_err(ClusterError::sql("terminating earlier workers"))?;
        if left.is_empty() {
            return become_admin(session).await;
        }
        pace.wait("the server", || describe(&left)).await?;
    }
}

/// Signals the session that has this advisory lock, with the same rights as [`terminate_worker_sessions`]. Only the
/// provisioner's logins can connect to the maintenance database, so only their sessions count.
pub(crate) async fn terminate_lock_holders(session: &mut PgConnection, key: i64) -> Result<(), ClusterError> {
    const HOLDERS: &str = "SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l \
        JOIN pg_stat_activity a ON a.pid = l.pid \
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid IS NOT NULL \
          AND (a.usename = session_user OR pg_has_role('pg_signal_backend', 'USAGE') AND a.usesysid IN ( \
              SELECT other.member FROM pg_auth_members other JOIN pg_auth_members mine USING (roleid) \
              WHERE mine.member = (SELECT oid FROM pg_roles WHERE rolname = session_user))) \
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
          AND l.classid::bigint = (($1 >> 32) & 4294967295) AND l.objid::bigint = ($1 & 4294967295)";
    become_login(session).await?;
    let signalled = sqlx::query(HOLDERS).bind(key).execute(&mut *session).await;
    signalled.map_err(ClusterError::sql("terminating the holder of the lock"))?;
    become_admin(session).await
}

/// Rolls back a prepared transaction, in a session in its database. Only the role that prepared it may do so; the
/// caller has granted the admin role a membership in that role.
///
/// # Errors
/// `InUse` names the transaction if the session may not act as its owner.
pub(crate) async fn roll_back_prepared(
    session: &mut PgConnection, database: &str, gid: &str, owner: &str,
) -> Result<(), ClusterError> {
    for statement in ddl::roll_back_prepared(gid, owner) {
        match statement.execute(session).await {
            Err(e) if sqlstate::is(&e, sqlstate::INSUFFICIENT_PRIVILEGE) => {
                let by = format!("the prepared transaction {gid:?} of {owner}");
                return Err(ClusterError::InUse { database: database.into(), by });
            }
            // Another session has ended it in the meantime.
            Err(e) if sqlstate::is(&e, sqlstate::UNDEFINED_OBJECT) => {}
            done => done.map_err(ClusterError::sql("rolling back a prepared transaction"))?,
        }
    }
    Ok(())
}

/// SET ROLE NONE: act as the login, not as the admin role.
async fn become_login(session: &mut PgConnection) -> Result<(), ClusterError> {
    let set = sqlx::query("SET ROLE NONE").execute(session).await;
    set.map(drop).map_err(ClusterError::sql("acting as the login"))
}

/// RESET ROLE: act as the admin role again, which `ALTER ROLE … SET role` gives each session.
async fn become_admin(session: &mut PgConnection) -> Result<(), ClusterError> {
    let reset = sqlx::query("RESET ROLE").execute(session).await;
    reset.map(drop).map_err(ClusterError::sql("acting as the admin role"))
}
