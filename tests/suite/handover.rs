//! What a caller of `acquire()` or `begin()` leaves in its session, and what the tenant's next caller finds.
use crate::migrate::migrations;
use crate::resolver::sessions::ResolverSetup;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Executor, Row};
use std::time::{Duration, Instant};
use tenantry::{ConnectionResolver, TenantPool, sqlx};

/// One tenant whose pool has one connection, and a superuser's session in its database.
async fn one_connection() -> (ResolverSetup, TenantPool, PgConnection, impl ConnectionResolver) {
    let world = ResolverSetup::new().await;
    let database = world.tenant("acme").await;
    let resolver = world.resolver().max_connections_per_tenant(1).build();
    let db = resolver.resolve("acme".into()).await.unwrap();
    let dba = database.options().connect().await.unwrap();
    (world, db, dba, resolver)
}

/// The session's process id, the channels that it listens on, whether it is in the transaction of an earlier caller, and
/// its advisory locks. One statement reads all of it: this call leaves the session to be cleared once more.
async fn state(db: &TenantPool) -> (i32, Vec<String>, bool, i64) {
    const STATE: &str = "SELECT pg_backend_pid(), ARRAY(SELECT pg_listening_channels()),
        now() <> statement_timestamp(),
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())";
    // The simple protocol: with the extended one the transaction begins at Bind and the statement at Execute.
    let row = db.fetch_one(sqlx::raw_sql(STATE)).await.unwrap();
    (row.get(0), row.get(1), row.get(2), row.get(3))
}

async fn advisory_locks(dba: &mut PgConnection) -> i64 {
    const LOCKS: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    sqlx::query_scalar(LOCKS).fetch_one(dba).await.unwrap()
}

/// The pool has one connection, so `state` waits until the returned session is ready.
#[tokio::test]
async fn acquired_session_loses_locks_and_channels_before_its_next_use() {
    let (_world, db, _dba, resolver) = one_connection().await;
    let (before, ..) = state(&db).await;
    let mut connection = db.acquire().await.unwrap();
    connection.execute("SELECT pg_advisory_lock(11); LISTEN news").await.unwrap();
    drop(connection);
    assert_eq!(state(&db).await, (before, vec![], false, 0), "the session was closed, still listens or has a lock");

    // The same in a transaction block that the caller leaves open, and in one that has failed.
    for statement in ["SELECT 1", "SELECT 1/0"] {
        let mut connection = db.acquire().await.unwrap();
        connection.execute("LISTEN news; SELECT pg_advisory_lock(12)").await.unwrap();
        connection.execute("BEGIN").await.unwrap();
        connection.execute("UNLISTEN *; LISTEN other").await.unwrap();
        let _ = connection.execute(statement).await;
        drop(connection);
        assert_eq!(state(&db).await, (before, vec![], false, 0), "after {statement} in a transaction");
    }
    let mut tx = db.begin().await.unwrap();
    tx.execute("SELECT pg_advisory_lock(13)").await.unwrap();
    tx.commit().await.unwrap();
    let (.., locks) = state(&db).await;
    assert_eq!(locks, 0, "a session lock outlives the transaction's connection");
    resolver.close().await;
}

/// sqlx expects no notification in a session without a listener, so the statement after one would fail.
#[tokio::test]
async fn listen_through_the_handle_does_not_break_the_next_statement() {
    let (_world, db, mut dba, resolver) = one_connection().await;
    db.execute("LISTEN news").await.unwrap();
    dba.execute("NOTIFY news").await.unwrap();
    let (_, channels, ..) = state(&db).await;
    assert_eq!(channels, Vec::<String>::new());
    resolver.close().await;
}

/// sqlx's migrator takes a session lock and leaves it when a migration fails. The next `run` waits for that lock.
#[tokio::test]
async fn failed_migrator_run_does_not_block_the_next_one() {
    let world = ResolverSetup::new().await;
    let database = world.tenant("acme").await;
    let resolver = world.resolver().build();
    let db = resolver.resolve("acme".into()).await.unwrap();
    let mut dba = database.options().connect().await.unwrap();
    migrations(&["SELECT 1", "SELECT no_such_column"]).run(&db).await.unwrap_err();
    let begun = Instant::now();
    while advisory_locks(&mut dba).await > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the failed run still has its lock after 10 s");
    }
    migrations(&["SELECT 1", "SELECT 2"]).run(&db).await.unwrap();
    resolver.close().await;
}
