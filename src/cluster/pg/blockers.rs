//! Retries work that waits for a lock of another session, and names that session if it keeps the lock.
//!
//! A set-up changes rows that any session of the server may have locked: those of shared databases and of predefined
//! roles. The lock timeout of its session bounds each wait.
use super::scram::Verifier;
use super::{bootstrap, ddl};
use crate::error::ClusterError;
use crate::names::RoleName;
use crate::server::ServerNames;
use crate::sqlstate;
use sqlx::PgConnection;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

/// Attempts, each of which waits for the lock timeout of the session at most.
const TRIES: u32 = 3;
/// Pause between two attempts, and between two looks at who holds the lock.
const PAUSE: Duration = Duration::from_millis(100);

/// A part of a set-up that the server admin's session does. Each may be repeated.
pub(crate) enum AdminTask<'a> {
    /// [`bootstrap::ensure_roles`].
    Roles { names: &'a ServerNames, verifiers: [&'a Verifier; 2], marker: &'a str },
    /// [`bootstrap::ensure_maintenance`].
    Maintenance(&'a ServerNames),
    /// [`bootstrap::grant_optional_roles`].
    Rights(&'a RoleName),
    /// [`bootstrap::close_to_public`].
    Close { database: &'a str, keep: &'a [String] },
}

impl AdminTask<'_> {
    /// Does it once. Returns what could not be done, with the reasons.
    async fn run(&self, session: &mut PgConnection) -> Result<Vec<String>, ClusterError> {
        match self {
            Self::Roles { names, verifiers, marker } => {
                bootstrap::ensure_roles(session, names, *verifiers, marker).await.map(|()| vec![])
            }
            Self::Maintenance(names) => bootstrap::ensure_maintenance(session, names).await.map(|()| vec![]),
            Self::Rights(admin) => bootstrap::grant_optional_roles(session, admin).await,
            Self::Close { database, keep } => {
                Ok(bootstrap::close_to_public(session, database, keep).await?.into_iter().collect())
            }
        }
    }
}

/// Does the task, up to three times while another session has locked what it changes. `watcher` is awaited only after
/// the first attempt has failed: it opens the session that finds the holder. Returns what could not be done.
///
/// # Errors
/// `Blocked` names the holders of the lock. If they were not found, the error of the last attempt. The session is
/// usable after both.
pub(crate) async fn retry_or_name_blocker(
    session: &mut PgConnection, watcher: impl Future<Output = Result<PgConnection, ClusterError>>, task: AdminTask<'_>,
) -> Result<Vec<String>, ClusterError> {
    let (phase, source) = match task.run(session).await {
        Err(ClusterError::Sql { phase, source }) if sqlstate::is_contended(&source) => (phase, source),
        done => return done,
    };
    let (mut watcher, mut by) = (watcher.await?, None);
    let mut last = ClusterError::Sql { phase, source };
    for _ in 1..TRIES {
        ddl::roll_back().run(session, "rolling back").await?;
        tokio::time::sleep(PAUSE).await;
        let pid = sqlx::query_scalar("SELECT pg_catalog.pg_backend_pid()").fetch_one(&mut *session).await;
        let pid = pid.map_err(ClusterError::sql("reading the id of a session"))?;
        let attempt = tokio::select! {
            biased;
            done = task.run(session) => done,
            never = watch(&mut watcher, pid, &mut by) => match never {},
        };
        match attempt {
            Err(ClusterError::Sql { phase, source }) if sqlstate::is_contended(&source) => {
                last = ClusterError::Sql { phase, source };
            }
            done => {
                super::session::close(watcher).await;
                return done;
            }
        }
    }
    ddl::roll_back().run(session, "rolling back").await?;
    super::session::close(watcher).await;
    Err(match by {
        Some(by) => ClusterError::Blocked { phase, by },
        None => last,
    })
}

/// Stores in `by` who blocks the process, again and again.
async fn watch(watcher: &mut PgConnection, pid: i32, by: &mut Option<String>) -> Infallible {
    const BLOCKERS: &str = "SELECT pg_catalog.string_agg(CASE WHEN b.pid = 0 \
            THEN 'a prepared transaction (see pg_prepared_xacts)' \
            ELSE pg_catalog.format('process %s (user %s, application \"%s\", transaction since %s)', b.pid, \
                coalesce(a.usename::text, '?'), a.application_name, \
                coalesce(pg_catalog.to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC', \
                    'an unknown time')) END, ', ') \
        FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids($1)) b (pid) \
            LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid";
    loop {
        let found = sqlx::query_scalar::<_, Option<String>>(BLOCKERS).bind(pid).fetch_one(&mut *watcher).await;
        if let Ok(Some(found)) = found {
            *by = Some(found);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
