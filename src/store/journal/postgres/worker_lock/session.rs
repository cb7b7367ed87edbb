//! The session that has a node's lock: opens it, checks that it is a session of its own, and takes the lock.
//!
//! Invariant: no lock is taken through a transaction pooler. Such a pooler gives a client's next statement to another
//! session, so the lock would stay in a session that serves other clients.
use rand::RngExt;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection, PgPool};
use std::time::Duration;
use tokio::time::timeout;

/// The first key of the workers' locks, "tnty" in ASCII. The second key is the node's own, a positive random number.
/// Locks with two keys and locks with one key never conflict. sqlx's migrator and all other advisory locks of this
/// crate have one key.
macro_rules! lock_class {
    () => {
        "1953395833"
    };
}
pub(in super::super) use lock_class;

/// The `application_name` of the session in `pg_stat_activity`.
const APPLICATION: &str = "tenantry worker lock";
/// Time limit for the check for a pooler. A pooler with one session for all clients never answers it.
const POOLER_CHECK: Duration = Duration::from_secs(3);
/// The landlord ends the session 15 s after this process or its network has gone silent: the first probe after 5 s, two
/// more in intervals of 5 s. On a Unix socket the settings have no effect, and none is needed. A lock that the previous
/// session still has is free by then, so waiting 20 s for it is enough.
const SETTINGS: &str = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 2;
    SET tcp_user_timeout = 15000; SET idle_session_timeout = 0; SET lock_timeout = '20s'; SET statement_timeout = '25s'";
const TRY_LOCK: &str = concat!("SELECT pg_try_advisory_lock(", lock_class!(), ", $1)");
const WAIT_FOR_LOCK: &str = concat!("SELECT pg_advisory_lock(", lock_class!(), ", $1)");
/// How many random keys are tried. Two nodes choose the same one of two thousand million keys very rarely.
const ATTEMPTS: u32 = 5;

/// A session that has the lock.
pub(super) struct LockSession {
    connection: PgConnection,
    key: i32,
    backend: i32,
}

impl LockSession {
    /// Opens a session and takes the lock. `previous` is the key of this process's last session; the new one takes it
    /// again if it can. `None` if the landlord is behind a transaction pooler.
    pub(super) async fn open(landlord: &PgPool, previous: Option<i32>) -> Result<Option<Self>, sqlx::Error> {
        let options = landlord.connect_options().as_ref().clone().application_name(APPLICATION);
        let mut connection = options.connect().await?;
        let backend = read_backend(&mut connection).await?;
        let own = timeout(POOLER_CHECK, is_own_session(&mut connection, backend, options.connect().await?)).await;
        if !own.unwrap_or(Ok(false))? {
            return Ok(None);
        }
        sqlx::raw_sql(SETTINGS).execute(&mut connection).await?;
        match take_lock(&mut connection, previous).await? {
            Some(key) => Ok(Some(Self { connection, key, backend })),
            None => Err(sqlx::Error::Protocol("every random key of a worker's lock is held by another session".into())),
        }
    }
    pub(super) fn key(&self) -> i32 {
        self.key
    }
    /// Whether the connection still leads to the session that has the lock.
    pub(super) async fn is_held(&mut self) -> Result<bool, sqlx::Error> {
        Ok(read_backend(&mut self.connection).await? == self.backend)
    }
    /// Ends the session, which releases the lock. Waits for it up to a second.
    pub(super) async fn close(self) {
        let _ = timeout(Duration::from_secs(1), self.connection.close()).await;
    }
}

/// By the simple protocol: a prepared statement does not work behind every pooler.
async fn read_backend(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    use sqlx::{Executor, Row};
    connection.fetch_one(sqlx::raw_sql("SELECT pg_backend_pid()")).await?.try_get(0)
}

/// Whether `connection` keeps its own session between statements. While `other` is in a transaction, a transaction
/// pooler gives it a session that it gives to no other client. So either `other` gets the session that `connection` had
/// before, or `connection` gets another one than before.
async fn is_own_session(
    connection: &mut PgConnection, backend: i32, mut other: PgConnection,
) -> Result<bool, sqlx::Error> {
    let before = read_backend(connection).await?;
    let mut transaction = other.begin().await?;
    let occupied = read_backend(&mut transaction).await?;
    let after = read_backend(connection).await?;
    transaction.rollback().await?;
    let _ = timeout(Duration::from_secs(1), other.close()).await;
    Ok(before == backend && after == backend && occupied != backend)
}

/// Takes the lock with the previous key, or with a random one. A broken session of this process may have the previous
/// key until the server notices; this waits for it, because operations are stored with that key.
async fn take_lock(connection: &mut PgConnection, previous: Option<i32>) -> Result<Option<i32>, sqlx::Error> {
    if let Some(key) = previous
        && sqlx::query(WAIT_FOR_LOCK).bind(key).execute(&mut *connection).await.is_ok()
    {
        return Ok(previous);
    }
    for _ in 0..ATTEMPTS {
        let key = rand::rng().random_range(1..=i32::MAX);
        if sqlx::query_scalar(TRY_LOCK).bind(key).fetch_one(&mut *connection).await? {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Harness;

    #[test]
    fn lock_class_is_the_text_tnty() {
        assert_eq!(lock_class!().parse(), Ok(i32::from_be_bytes(*b"tnty")));
    }

    /// For these settings PostgreSQL reports the values of the session's socket, and 0 on a Unix socket. The pool's own
    /// options ask for longer times.
    #[tokio::test]
    async fn landlord_ends_a_silent_session_with_a_lock_within_15_seconds() {
        const READ: &str = "SELECT inet_client_addr() IS NOT NULL, current_setting('tcp_keepalives_idle')::int,
            current_setting('tcp_keepalives_interval')::int, current_setting('tcp_keepalives_count')::int,
            (SELECT setting::int FROM pg_settings WHERE name = 'tcp_user_timeout')";
        let harness = Harness::start().await.unwrap();
        let options = harness.landlord().connect_options().as_ref().clone();
        let slow = [("tcp_keepalives_idle", "600"), ("tcp_keepalives_count", "9"), ("tcp_user_timeout", "600000")];
        let pool = sqlx::postgres::PgPoolOptions::new().connect_lazy_with(options.options(slow));
        let before: (bool, i32, i32, i32, i32) = sqlx::query_as(READ).fetch_one(&pool).await.unwrap();
        assert!(before.0, "the test needs a TCP session");
        assert_eq!((before.1, before.3, before.4), (600, 9, 600_000), "the server must report what was asked for");
        let mut session = LockSession::open(&pool, None).await.unwrap().expect("no pooler is there");
        let (is_tcp, idle, interval, count, unacknowledged): (bool, i32, i32, i32, i32) =
            sqlx::query_as(READ).fetch_one(&mut session.connection).await.unwrap();
        assert!(is_tcp, "the lock's session must be a TCP session like those of the pool");
        assert!(idle > 0 && interval > 0 && count > 0, "keepalives of the system apply: {idle} {interval} {count}");
        assert!(idle + interval * count <= 15, "silence is noticed after {idle} s + {count} * {interval} s");
        assert!((1..=15_000).contains(&unacknowledged), "unacknowledged data is noticed after {unacknowledged} ms");
        session.close().await;
        pool.close().await;
    }
}
