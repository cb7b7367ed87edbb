//! Ending sessions: all are signalled at once, then looked for until they are gone.
use crate::cluster::pg::ddl;
use crate::error::ClusterError;
use crate::names::{DatabaseName, RoleName};
use crate::sqlstate;
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const LIMIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(5);
/// The first look comes sooner: most sessions are gone within a millisecond.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const SIGNAL_AGAIN: Duration = Duration::from_secs(1);
/// For sessions that are connecting to a database which is not ours.
const STRANGERS: Duration = Duration::from_secs(5);
/// For sessions in our database that we may not end: one may just be going.
const PATIENCE: Duration = Duration::from_secs(2);

/// A row for each session that is left; `signalled` is NULL for one that we may not end, or that was only looked at.
type Row = (i32, Option<String>, Option<bool>);

/// Tells every session of these logins to end, in whichever database, and waits for none.
pub(crate) async fn signal_role_sessions(session: &mut PgConnection, logins: &[&RoleName]) -> Result<(), ClusterError> {
    by_roles(session, logins, true).await.map(drop)
}

async fn by_roles(session: &mut PgConnection, logins: &[&RoleName], signal: bool) -> Result<Vec<Row>, ClusterError> {
    const BY_ROLE: &str = "SELECT pid, usename::text, CASE WHEN $2 THEN pg_terminate_backend(pid) END \
        FROM pg_stat_activity WHERE usesysid = ANY(SELECT oid FROM pg_roles WHERE rolname = ANY($1))";
    let names: Vec<&str> = logins.iter().map(|l| l.as_str()).collect();
    let left = sqlx::query_as(BY_ROLE).bind(names).bind(signal).fetch_all(session).await;
    left.map_err(ClusterError::sql("ending sessions"))
}

/// Waits until this login has no session, in whichever database; `false` if it still has one after `limit`.
pub(crate) async fn wait_until_idle(
    session: &mut PgConnection, login: &RoleName, limit: Duration,
) -> Result<bool, ClusterError> {
    const SESSIONS: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1)";
    let until = Instant::now() + limit;
    let mut look = FIRST_LOOK;
    loop {
        let left = sqlx::query_scalar(SESSIONS).bind(login.as_str()).fetch_one(&mut *session).await;
        if !left.map_err(ClusterError::sql("looking for sessions of a login"))? {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        sleep(look.min(until.saturating_duration_since(Instant::now()))).await;
        look = (look * 2).min(Duration::from_millis(100));
    }
}

/// c2_end: every session of these logins, in whichever database. c1 must have run.
pub(crate) async fn terminate_role_sessions(
    session: &mut PgConnection, logins: &[&RoleName],
) -> Result<(), ClusterError> {
    let mut pace = Pace::new();
    loop {
        let signal = pace.signal();
        let left = by_roles(session, logins, signal).await?;
        if left.is_empty() {
            return Ok(());
        }
        pace.wait("the server", || listed(&left)).await?;
    }
}

/// Signals at once and again each second, looks every few milliseconds in between, and gives up after [`LIMIT`].
struct Pace {
    begun: Instant,
    signalled: Option<Instant>,
    looks: u32,
}

impl Pace {
    fn new() -> Self {
        Self { begun: Instant::now(), signalled: None, looks: 0 }
    }
    fn signal(&mut self) -> bool {
        let due = self.signalled.is_none_or(|at| at.elapsed() >= SIGNAL_AGAIN);
        if due {
            self.signalled = Some(Instant::now());
        }
        due
    }
    async fn wait(&mut self, database: &str, by: impl FnOnce() -> String) -> Result<(), ClusterError> {
        if self.begun.elapsed() >= LIMIT {
            return Err(ClusterError::InUse { database: database.into(), by: by() });
        }
        sleep(if self.looks == 0 { FIRST_LOOK } else { LOOK }).await;
        self.looks += 1;
        Ok(())
    }
}

fn listed(rows: &[Row]) -> String {
    let one = |(pid, user, _): &Row| format!("process {pid} ({})", user.as_deref().unwrap_or("unknown"));
    rows.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// c2_connecting: sessions that have passed authentication and show no user yet. If the role went first, they would go
/// on living under a dropped role, and nobody could end them. Those in our database are ended, after `patience`: one
/// may use a login that stays. Others are waited for at most 5 s, since any tenant's login can stretch this moment.
pub(crate) async fn wait_for_connecting_sessions(
    session: &mut PgConnection, database: &DatabaseName, patience: Duration,
) -> Result<(), ClusterError> {
    let found = connecting_now(session, database).await?;
    let (mut pace, mut now, mut ended) = (Pace::new(), found.clone(), false);
    loop {
        let left: Vec<_> = found.iter().filter(|f| now.iter().any(|n| n.0 == f.0)).collect();
        if left.is_empty() {
            return Ok(());
        }
        if !ended && pace.begun.elapsed() >= patience {
            for (pid, _) in left.iter().filter(|(_, own)| *own) {
                terminate(session, *pid).await?;
            }
            ended = true;
        }
        let pids = || left.iter().map(|(pid, _)| format!("process {pid} (connecting)")).collect::<Vec<_>>().join(", ");
        if left.iter().all(|(_, own)| !own) && pace.begun.elapsed() >= STRANGERS {
            tracing::warn!(sessions = pids(), "stay in the middle of connecting to other databases; going on");
            return Ok(());
        }
        pace.wait(database.as_str(), pids).await?;
        now = connecting_now(session, database).await?;
    }
}

async fn connecting_now(session: &mut PgConnection, database: &DatabaseName) -> Result<Vec<(i32, bool)>, ClusterError> {
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

/// Asks once what ending the sessions of a login will ask: the first time costs milliseconds, since the session has not
/// met these catalogs yet. It changes nothing.
pub(crate) async fn prefetch_catalog(
    session: &mut PgConnection, database: &DatabaseName, login: &RoleName,
) -> Result<(), ClusterError> {
    connecting_now(session, database).await?;
    by_roles(session, &[login], false).await.map(drop)
}

/// Ends sessions that are still connecting to this database, and waits for none.
pub(crate) async fn end_connecting(session: &mut PgConnection, database: &DatabaseName) -> Result<(), ClusterError> {
    for (pid, own) in connecting_now(session, database).await? {
        if own {
            terminate(session, pid).await?;
        }
    }
    Ok(())
}

/// One call each: a session that we may not end (42501) is not ours, and must not keep us from the others.
async fn terminate(session: &mut PgConnection, pid: i32) -> Result<(), ClusterError> {
    match sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(session).await {
        Err(e) if sqlstate::is(&e, sqlstate::INSUFFICIENT_PRIVILEGE) => Ok(()),
        ended => ended.map(drop).map_err(ClusterError::sql("ending a session")),
    }
}

/// d2: every session in this database; d1 must have run. Somebody else's (a superuser's psql, a backup) is named.
pub(crate) async fn terminate_database_sessions(
    session: &mut PgConnection, database: &DatabaseName,
) -> Result<(), ClusterError> {
    const END: &str = "SELECT a.pid, a.usename::text,
           CASE WHEN pg_has_role(a.usesysid, 'USAGE') THEN NOT $2 OR pg_terminate_backend(a.pid) END
      FROM pg_stat_activity a WHERE a.datname = $1 AND a.usesysid IS NOT NULL";
    let mut pace = Pace::new();
    loop {
        let signal = pace.signal();
        let left = sqlx::query_as(END).bind(database.as_str()).bind(signal).fetch_all(&mut *session).await;
        let left: Vec<Row> = left.map_err(ClusterError::sql("ending the sessions of a database"))?;
        if left.is_empty() {
            return Ok(());
        }
        let foreign: Vec<Row> = left.iter().filter(|r| r.2.is_none()).cloned().collect();
        if !foreign.is_empty() && pace.begun.elapsed() >= PATIENCE {
            return Err(ClusterError::InUse { database: database.to_string(), by: listed(&foreign) });
        }
        pace.wait(database.as_str(), || listed(&left)).await?;
    }
}

/// Sessions of earlier workers of an operation, in every database, by their name: `tenantry/<operation>/<epoch>`. Ended
/// as the login itself: as the admin role it would be 42501. The migrator's too, if c1 has made the admin role its
/// member; those of the other provisioner login, if the admin role has `pg_signal_backend`, or else nobody can end them
/// but that login. Anybody else may call his sessions so, and is not waited for.
pub(crate) async fn terminate_worker_sessions(session: &mut PgConnection, prefix: &str) -> Result<(), ClusterError> {
    const WORKERS: &str = "SELECT a.pid, a.usename::text, CASE WHEN $2 THEN pg_terminate_backend(a.pid) END \
        FROM pg_stat_activity a WHERE starts_with(a.application_name, $1) AND a.pid <> pg_backend_pid() \
          AND (pg_has_role(a.usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE') AND a.usesysid IN ( \
              SELECT other.member FROM pg_auth_members other JOIN pg_auth_members mine USING (roleid) \
              WHERE mine.member = (SELECT oid FROM pg_roles WHERE rolname = session_user)))";
    as_login(session).await?;
    let mut pace = Pace::new();
    loop {
        let signal = pace.signal();
        let left = sqlx::query_as(WORKERS).bind(prefix).bind(signal).fetch_all(&mut *session).await;
        let left: Vec<Row> = left.map_err(ClusterError::sql("ending earlier workers"))?;
        if left.is_empty() {
            return as_admin(session).await;
        }
        pace.wait("the server", || listed(&left)).await?;
    }
}

/// Whoever holds this lock, by the same rights: nobody but the provisioner's logins enters the maintenance database.
pub(crate) async fn terminate_lock_holders(session: &mut PgConnection, key: i64) -> Result<(), ClusterError> {
    const HOLDERS: &str = "SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l \
        JOIN pg_stat_activity a ON a.pid = l.pid \
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid IS NOT NULL \
          AND (a.usename = session_user OR pg_has_role('pg_signal_backend', 'USAGE') AND a.usesysid IN ( \
              SELECT other.member FROM pg_auth_members other JOIN pg_auth_members mine USING (roleid) \
              WHERE mine.member = (SELECT oid FROM pg_roles WHERE rolname = session_user))) \
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
          AND l.classid::bigint = (($1 >> 32) & 4294967295) AND l.objid::bigint = ($1 & 4294967295)";
    as_login(session).await?;
    let ended = sqlx::query(HOLDERS).bind(key).execute(&mut *session).await;
    ended.map_err(ClusterError::sql("ending the holder of the lock"))?;
    as_admin(session).await
}

/// Rolls a prepared transaction back, from a session in its database. Only the role that prepared it may; the membership
/// that the caller has granted allows acting as it.
///
/// # Errors
/// `InUse` names a transaction whose owner we may not act as.
pub(crate) async fn roll_back_prepared(
    session: &mut PgConnection, database: &str, gid: &str, owner: &str,
) -> Result<(), ClusterError> {
    for statement in ddl::roll_back_prepared(gid, owner) {
        match statement.execute(session).await {
            Err(e) if sqlstate::is(&e, sqlstate::INSUFFICIENT_PRIVILEGE) => {
                let by = format!("the prepared transaction {gid:?} of {owner}");
                return Err(ClusterError::InUse { database: database.into(), by });
            }
            // It was ended in between.
            Err(e) if sqlstate::is(&e, sqlstate::UNDEFINED_OBJECT) => {}
            done => done.map_err(ClusterError::sql("rolling back a prepared transaction"))?,
        }
    }
    Ok(())
}

async fn as_login(session: &mut PgConnection) -> Result<(), ClusterError> {
    let set = sqlx::query("SET ROLE NONE").execute(session).await;
    set.map(drop).map_err(ClusterError::sql("acting as the login"))
}

/// Back to the role that `ALTER ROLE … SET role` gives each session.
async fn as_admin(session: &mut PgConnection) -> Result<(), ClusterError> {
    let reset = sqlx::query("RESET ROLE").execute(session).await;
    reset.map(drop).map_err(ClusterError::sql("acting as the admin role"))
}
