//! A tenant's open sessions follow its schema: after a migration, every node replaces the sessions that it opened before.
//!
//! A session that is not replaced fails with 0A000 as soon as it runs a prepared statement whose result has other columns
//! now. The tests run that statement in a transaction, where nothing repeats it.
use crate::auditor::{self, code};
use crate::migrate::migrations;
use crate::resolver::sessions::ResolverSetup;
use futures_util::TryStreamExt;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Executor, Statement};
use std::time::{Duration, Instant};
use tenantry::testing::Harness;
use tenantry::{Builder, ConnectionResolver, TenantPool, Tenantry, sqlx};

const NOTES: &str = "CREATE TYPE mood AS ENUM ('good'); CREATE TABLE notes (id int, text text)";
const DONE: &str = "ALTER TABLE notes ADD COLUMN done boolean NOT NULL DEFAULT false";
const MOOD: &str = "DROP TYPE mood; CREATE TYPE mood AS ENUM ('good', 'bad')";
const BROKEN: &str = "ALTER TABLE there_is_no_such_table ADD COLUMN x int";
const HALF: &str = "-- no-transaction\nALTER TABLE there_is_no_such_table ADD COLUMN x int";

/// A node whose binary contains these migrations.
async fn node(harness: &Harness, texts: &[&'static str]) -> Tenantry {
    let migrator = migrations(texts);
    harness.tenantry(|b: Builder| b.tenant_migrations(migrator).lease(Duration::from_secs(2))).await.unwrap()
}

/// The process id of the session that the handle uses, after it has prepared statements over the table and the type.
async fn prepare(db: &TenantPool) -> i32 {
    let mut tx = db.begin().await.unwrap();
    select_notes(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    pid(db).await
}
async fn select_notes(session: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("SELECT * FROM notes").fetch_all(&mut *session).await?;
    sqlx::query("SELECT 'good'::mood").fetch_all(&mut *session).await.map(drop)
}
async fn pid(db: &TenantPool) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(db).await.unwrap()
}
async fn schema_state(harness: &Harness) -> String {
    sqlx::query_scalar("SELECT schema_state FROM tenantry.tenant_databases")
        .fetch_one(harness.landlord())
        .await
        .unwrap()
}

/// A superuser's session in the tenant's database.
async fn dba(harness: &Harness, node: &Tenantry, slug: &str) -> PgConnection {
    let database = auditor::login(node, slug).await.get_database().unwrap().to_owned();
    harness.server().admin_options().database(&database).connect().await.unwrap()
}

/// Waits until the server has no session with this process id; panics after 10 s.
async fn wait_until_gone(on_server: &mut PgConnection, pid: i32) {
    let begun = Instant::now();
    const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)";
    while sqlx::query_scalar::<_, bool>(EXISTS).bind(pid).fetch_one(&mut *on_server).await.unwrap() {
        assert!(begun.elapsed() < Duration::from_secs(10), "session {pid} was not closed within 10 s");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migration_replaces_the_sessions_of_every_node() {
    let harness = Harness::start().await.unwrap();
    let other = node(&harness, &[NOTES]).await;
    other.provision("acme").await.unwrap();
    let running = tokio::spawn(other.run(std::future::pending::<()>()));
    let db = other.resolve("acme").await.unwrap();
    let before = prepare(&db).await;

    let new = node(&harness, &[NOTES, DONE, MOOD]).await;
    let on_new = new.resolve("acme").await.unwrap();
    prepare(&on_new).await;
    new.migrate("acme").await.unwrap();
    let mut tx = on_new.begin().await.unwrap();
    select_notes(&mut tx).await.expect("the migrating node gave a session of the old schema after migrate() returned");

    wait_until_gone(&mut auditor::superuser(&harness).await, before).await;
    let mut tx = db.begin().await.unwrap();
    select_notes(&mut tx).await.expect("another node gave a session of the old schema");
    other.close().await;
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn migration_that_applies_nothing_keeps_the_sessions() {
    let harness = Harness::start().await.unwrap();
    let node = node(&harness, &[NOTES, DONE]).await;
    node.provision("acme").await.unwrap();
    let (db, state) = (node.resolve("acme").await.unwrap(), schema_state(&harness).await);
    let before = prepare(&db).await;
    node.migrate("acme").await.unwrap();
    assert_eq!(schema_state(&harness).await, state);
    assert_eq!(
        pid(&node.resolve("acme").await.unwrap()).await,
        before,
        "a migration without effect closed the session"
    );
}

/// The entry's state says what the nodes do: they replace sessions when it changes.
#[tokio::test]
async fn failed_and_parked_migrations_change_the_state_of_the_schema() {
    let harness = Harness::start().await.unwrap();
    let old = node(&harness, &[NOTES]).await;
    old.provision("acme").await.unwrap();
    let provisioned = schema_state(&harness).await;
    let failing = node(&harness, &[NOTES, DONE, BROKEN]).await;
    failing.migrate("acme").await.unwrap_err();
    let failed = schema_state(&harness).await;
    assert_ne!(failed, provisioned, "version 2 was applied before version 3 failed");

    let parking = node(&harness, &[NOTES, DONE, HALF]).await;
    parking.migrate("acme").await.unwrap_err();
    let parked = schema_state(&harness).await;
    assert_ne!(parked, failed, "a migration outside a transaction may have had an effect before it failed");
}

/// The worker dies after the migration was applied and before it could record that. Its successor finds nothing to
/// apply.
#[tokio::test]
async fn migration_whose_worker_died_changes_the_state_of_the_schema() {
    let harness = Harness::start().await.unwrap();
    let node = node(&harness, &[NOTES, DONE]).await;
    node.provision("acme").await.unwrap();
    let recorded = schema_state(&harness).await;
    // What the dead worker has left: version 2 is in the ledger, and the entry still has the state before it.
    harness.landlord().execute("UPDATE tenantry.tenant_databases SET schema_state = 'version 1'").await.unwrap();
    node.migrate("acme").await.unwrap();
    assert_eq!(schema_state(&harness).await, recorded, "the state does not follow from the ledger");
}

#[tokio::test]
async fn statement_is_repeated_once_after_a_change_by_hand() {
    let harness = Harness::start().await.unwrap();
    let node = node(&harness, &[NOTES]).await;
    node.provision("acme").await.unwrap();
    let db = node.resolve("acme").await.unwrap();
    let before = prepare(&db).await;
    let mut dba = dba(&harness, &node, "acme").await;
    dba.execute(DONE).await.unwrap();
    let rows = sqlx::query("SELECT * FROM notes").fetch_all(&db).await.expect("a prepared query in autocommit");
    assert!(rows.is_empty());
    assert_ne!(pid(&db).await, before, "the session of the old schema is used again");

    prepare(&db).await;
    dba.execute("ALTER TABLE notes DROP COLUMN done").await.unwrap();
    sqlx::query("SELECT * FROM notes").fetch_optional(&db).await.expect("fetch_optional");
    dba.execute(DONE).await.unwrap();
    let stream: Vec<_> = sqlx::query("SELECT * FROM notes").fetch(&db).try_collect().await.expect("a stream");
    assert!(stream.is_empty());

    dba.execute("ALTER TABLE notes DROP COLUMN done").await.unwrap();
    let mut tx = db.begin().await.unwrap();
    let error = sqlx::query("SELECT * FROM notes").fetch_all(&mut *tx).await.unwrap_err();
    assert_eq!(code(&error), "0A000", "a statement of a transaction must not be repeated alone");
}

/// The statement that the caller has prepared has the columns and types of its session.
#[tokio::test]
async fn statement_that_the_caller_has_prepared_is_not_repeated() {
    let world = ResolverSetup::new().await;
    let database = world.tenant("acme").await;
    let resolver = world.resolver().max_connections_per_tenant(1).build();
    let db = resolver.resolve("acme".into()).await.unwrap();
    let mut dba = database.options().connect().await.unwrap();
    dba.execute("CREATE TABLE notes (id int); GRANT SELECT ON notes TO PUBLIC").await.unwrap();
    let prepared = db.prepare(sqlx::SqlStr::from_static("SELECT * FROM notes")).await.unwrap();
    prepared.query().fetch_all(&db).await.unwrap();
    dba.execute(DONE).await.unwrap();
    let error = prepared.query().fetch_all(&db).await.unwrap_err();
    assert_eq!(code(&error), "0A000");
}

/// The function fails as the check of a plan does, five times. Its sequence counts the runs.
#[tokio::test]
async fn statement_that_fails_again_after_its_repetition_fails() {
    let harness = Harness::start().await.unwrap();
    let node = node(&harness, &[NOTES]).await;
    node.provision("acme").await.unwrap();
    let db = node.resolve("acme").await.unwrap();
    let mut dba = dba(&harness, &node, "acme").await;
    dba.execute(
        "CREATE TABLE changing (id int); CREATE SEQUENCE runs;
        CREATE FUNCTION change() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
            IF nextval('runs') <= 5 THEN
                EXECUTE 'PREPARE changing AS SELECT * FROM changing';
                EXECUTE 'ALTER TABLE changing ADD COLUMN more int';
                EXECUTE 'EXECUTE changing';
            END IF;
            RETURN 1; END $$",
    )
    .await
    .unwrap();
    let error = sqlx::query("SELECT change()").fetch_all(&db).await.unwrap_err();
    assert_eq!(code(&error), "0A000");
    let runs: i64 = sqlx::query_scalar("SELECT last_value FROM runs").fetch_one(&mut dba).await.unwrap();
    assert_eq!(runs, 2, "the statement must run once, and once more");
}

/// A function may raise the same code after it has done something. That statement must not run again.
#[tokio::test]
async fn statement_that_raises_0a000_itself_runs_once() {
    let harness = Harness::start().await.unwrap();
    let node = node(&harness, &[NOTES]).await;
    node.provision("acme").await.unwrap();
    let db = node.resolve("acme").await.unwrap();
    let mut dba = dba(&harness, &node, "acme").await;
    // A sequence is not rolled back, so it counts the runs.
    dba.execute(
        "CREATE SEQUENCE runs; GRANT ALL ON SEQUENCE runs TO PUBLIC;
        CREATE FUNCTION refuse() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
            PERFORM nextval('runs'); RAISE EXCEPTION 'no' USING ERRCODE = '0A000'; END $$",
    )
    .await
    .unwrap();
    let before = prepare(&db).await;
    let error = sqlx::query("SELECT refuse()").fetch_all(&db).await.unwrap_err();
    assert_eq!(code(&error), "0A000");
    let runs: i64 = sqlx::query_scalar("SELECT last_value FROM runs").fetch_one(&mut dba).await.unwrap();
    assert_eq!(runs, 1, "a statement that was executed ran again");
    assert_ne!(pid(&db).await, before, "a session is used again after 0A000");
}

/// XX000 repeats the statement only if the tenant's share was retired while the statement ran. The function fails in one
/// session only: in the one that the test names.
#[tokio::test]
async fn internal_error_is_repeated_only_in_a_session_older_than_the_schema() {
    let world = ResolverSetup::new().await;
    let database = world.tenant("acme").await;
    let resolver = world.resolver().build();
    let db = resolver.resolve("acme".into()).await.unwrap();
    let mut dba = database.options().connect().await.unwrap();
    dba.execute(
        "CREATE TABLE old (pid int);
        CREATE FUNCTION fail_in_old() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_advisory_xact_lock_shared(4712);
            IF EXISTS (SELECT FROM old WHERE pid = pg_backend_pid()) THEN
                RAISE EXCEPTION 'cache' USING ERRCODE = 'XX000';
            END IF;
            RETURN 1; END $$",
    )
    .await
    .unwrap();
    let old = pid(&db).await;
    sqlx::query("INSERT INTO old VALUES ($1)").bind(old).execute(&mut dba).await.unwrap();
    let error = sqlx::query("SELECT fail_in_old()").fetch_all(&db).await.unwrap_err();
    assert_eq!((code(&error), pid(&db).await), ("XX000".into(), old), "nothing is known to be newer than the session");

    dba.execute("SELECT pg_advisory_lock(4712)").await.unwrap();
    let query = tokio::spawn({
        let db = db.clone();
        async move { sqlx::query_scalar::<_, i32>("SELECT fail_in_old()").fetch_one(&db).await }
    });
    const WAITS: &str = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid = $1)";
    while !sqlx::query_scalar::<_, bool>(WAITS).bind(old).fetch_one(&mut dba).await.unwrap() {
        assert!(!query.is_finished(), "the query did not wait for the lock");
    }
    world.change_entry("acme", |entry| entry.schema_state = "newer".into());
    resolver.invalidate(db.tenant().id());
    resolver.resolve("acme".into()).await.unwrap();
    dba.execute("SELECT pg_advisory_unlock(4712)").await.unwrap();
    assert_eq!(query.await.unwrap().expect("the statement was not repeated in a newer session"), 1);
}

/// The caller has seen rows of the statement, so a repetition would give it those rows twice. The rows are so large that
/// the server sends them before the statement fails.
#[tokio::test]
async fn statement_that_has_given_a_row_is_not_repeated() {
    let world = ResolverSetup::new().await;
    let database = world.tenant("acme").await;
    let resolver = world.resolver().build();
    let db = resolver.resolve("acme".into()).await.unwrap();
    let mut dba = database.options().connect().await.unwrap();
    dba.execute(
        "CREATE FUNCTION fail_at_three(n int) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
            IF n < 3 THEN RETURN repeat('x', 20000); END IF;
            PERFORM pg_advisory_xact_lock_shared(4712);
            RAISE EXCEPTION 'cache' USING ERRCODE = 'XX000'; END $$;
        SELECT pg_advisory_lock(4712)",
    )
    .await
    .unwrap();
    let mut rows = sqlx::query("SELECT fail_at_three(n) FROM generate_series(1, 3) n").fetch(&db);
    rows.try_next().await.unwrap().expect("the first row");
    world.change_entry("acme", |entry| entry.schema_state = "newer".into());
    resolver.invalidate(db.tenant().id());
    resolver.resolve("acme".into()).await.unwrap();
    dba.execute("SELECT pg_advisory_unlock(4712)").await.unwrap();
    let mut seen = 1;
    let error = loop {
        match rows.try_next().await {
            Ok(row) => seen += row.map(|_| 1).expect("the statement did not fail"),
            Err(error) => break error,
        }
    };
    assert_eq!((code(&error), seen), ("XX000".into(), 2), "the caller got rows of a second run");
}

/// An idle session that has expired is closed within a second or two, whether or not it is used. So the checkout itself
/// has to replace it for ten replacements in five seconds.
#[tokio::test]
async fn session_is_replaced_at_the_end_of_its_lifetime() {
    let mut world = ResolverSetup::new().await;
    let database = world.tenant("acme").await;
    let resolver = world.resolver().pool(|p| p.max_lifetime(Duration::from_millis(50))).build();
    let db = resolver.resolve("acme".into()).await.unwrap();
    let (mut last, begun) = (pid(&db).await, Instant::now());
    for replaced in 0..10 {
        while pid(&db).await == last {
            assert!(begun.elapsed() < Duration::from_secs(5), "{replaced} sessions were replaced in 5 s");
        }
        last = pid(&db).await;
    }
    resolver.close().await;
    world.wait_until_no_session(&database).await;
}

/// Nothing uses the idle tenant. Another tenant's traffic on the same server drives the search.
#[tokio::test]
async fn idle_session_is_closed_without_a_timer_of_its_own() {
    let mut world = ResolverSetup::new().await;
    let idle = [world.tenant("idle").await.name().to_owned()];
    world.tenant("busy").await;
    // With a ping before each use, each query takes the path that looks for expired sessions.
    let settings = world.resolver().pool(|p| p.idle_timeout(Duration::from_millis(50)).max_lifetime(None));
    let resolver = settings.pool(|p| p.ping_after(Duration::ZERO)).build();
    pid(&resolver.resolve("idle".into()).await.unwrap()).await;
    assert_eq!(world.sessions_of(&idle).await, 1);
    let (busy, begun) = (resolver.resolve("busy".into()).await.unwrap(), Instant::now());
    while world.sessions_of(&idle).await > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "an idle session is open after 10 s");
        pid(&busy).await;
    }
}

/// No statement runs on the whole node, so no acquire looks for expired sessions. The background work does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_session_of_a_quiet_node_is_closed_by_the_background_work() {
    let harness = Harness::start().await.unwrap();
    let migrator = migrations(&[NOTES]);
    let configure = |b: Builder| b.tenant_migrations(migrator).pool(|p| p.idle_timeout(Duration::from_millis(50)));
    let node = harness.tenantry(configure).await.unwrap();
    node.provision("acme").await.unwrap();
    let idle = pid(&node.resolve("acme").await.unwrap()).await;
    let running = tokio::spawn(node.run(std::future::pending::<()>()));
    wait_until_gone(&mut auditor::superuser(&harness).await, idle).await;
    node.close().await;
    running.await.unwrap().unwrap();
}
