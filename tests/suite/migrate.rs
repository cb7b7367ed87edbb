//! `migrate`, `migrate_all` and `migration_status` for tenants that already exist.
//!
//! A test builds two handles with different migrations, as the nodes of one application have them before and after a
//! deployment. After each operation no migrator role may be left on the server ([`assert_no_migrator`]).
mod ahead;
mod lock;
mod suspended;

use crate::auditor::{self, code};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{ConnectOptions, Executor, SqlSafeStr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::error::{ChangeError, FailureState};
use tenantry::migrate::MigrationState;
use tenantry::operation::OperationStatus;
use tenantry::testing::Harness;
use tenantry::{Builder, Tenantry, sqlx};

type Configure = Box<dyn FnOnce(Builder) -> Builder>;

/// Migrations in order from version 1; those that begin with `-- no-transaction` run outside one.
pub(crate) fn migrations(texts: &[&'static str]) -> &'static Migrator {
    let one = |(at, text): (usize, &&'static str)| {
        let outside = text.starts_with("-- no-transaction");
        Migration::new(at as i64 + 1, "m".into(), MigrationType::Simple, text.into_sql_str(), outside)
    };
    Box::leak(Box::new(Migrator::with_migrations(texts.iter().enumerate().map(one).collect())))
}
/// Configures a node whose binary contains these migrations.
fn program(texts: &[&'static str]) -> Configure {
    let migrator = migrations(texts);
    Box::new(move |b| b.tenant_migrations(migrator).lease(Duration::from_secs(2)))
}

const NOTES: &str = "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY, text text NOT NULL)";
const DONE: &str = "ALTER TABLE notes ADD COLUMN done boolean NOT NULL DEFAULT false";
const INDEX: &str = "-- no-transaction\nCREATE INDEX CONCURRENTLY notes_text ON notes (text)";
const BROKEN: &str = "ALTER TABLE there_is_no_such_table ADD COLUMN x int";

/// Asserts that no migrator role and no occupied lane is left.
pub(crate) async fn assert_no_migrator(harness: &Harness) {
    let left = auditor::on_server(harness).await;
    assert!(!left.iter().any(|name| name.ends_with("_mig")), "a migrator role is left: {left:?}");
    let rows = auditor::landlord_only(harness.landlord()).await;
    assert!(!rows.iter().any(|row| row.starts_with("lane")), "a lane is still occupied: {rows:?}");
}

/// Asserts that no migrator role can log in. The role itself may exist.
async fn assert_no_migrator_logs_in(harness: &Harness) {
    const LOGINS: &str = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 't\\_%\\_mig' AND rolcanlogin
        AND shobj_description(oid, 'pg_authid') LIKE '%' || $1 || '%'";
    let installation: String =
        sqlx::query_scalar("SELECT id::text FROM tenantry.installation").fetch_one(harness.landlord()).await.unwrap();
    let mut server = auditor::superuser(harness).await;
    let logins: i64 = sqlx::query_scalar(LOGINS).bind(installation).fetch_one(&mut server).await.unwrap();
    assert_eq!(logins, 0, "migrator roles that can log in");
}

#[tokio::test]
async fn migrate_applies_all_pending_migrations() {
    let harness = Harness::start().await.unwrap();
    let old = harness.tenantry(program(&[NOTES])).await.unwrap();
    old.provision("acme").await.unwrap();
    let new = harness.tenantry(program(&[NOTES, DONE, INDEX])).await.unwrap();
    let status = new.migration_status("acme").await.unwrap();
    assert_eq!((status.applied, status.newest), (Some(1), Some(3)));
    assert_eq!(status.state, MigrationState::Behind { pending: vec![2, 3] });

    let migrated = new.migrate("acme").reason("deployment 7").await.unwrap();
    assert_eq!((migrated.from, migrated.to), (Some(1), Some(3)));
    assert_eq!(new.migration_status("acme").await.unwrap().state, MigrationState::AtHead);
    assert_eq!(old.migration_status("acme").await.unwrap().state, MigrationState::Ahead { version: 2 });
    let db = new.resolve("acme").await.unwrap();
    db.execute("INSERT INTO notes (text, done) VALUES ('works', true)").await.unwrap();
    let write = db.execute("DELETE FROM _sqlx_migrations").await.unwrap_err();
    assert_eq!(code(&write), "42501", "the application role can write to the migration ledger");
    assert_no_migrator(&harness).await;

    let again = new.migrate("acme").await.unwrap();
    assert_eq!((again.from, again.to), (Some(3), Some(3)));
    let refused = old.migrate("acme").await.unwrap_err();
    assert!(
        matches!(&refused, ChangeError::Ahead { version: 2, .. }),
        "a binary with older migrations migrated a newer database: {refused:?}"
    );
    assert_no_migrator(&harness).await;
}

#[tokio::test]
async fn failed_migration_is_named_and_earlier_ones_stay_applied() {
    let harness = Harness::start().await.unwrap();
    let old = harness.tenantry(program(&[NOTES])).await.unwrap();
    old.provision("acme").await.unwrap();
    let new = harness.tenantry(program(&[NOTES, DONE, BROKEN])).await.unwrap();
    let error = new.migrate("acme").await.unwrap_err();
    let ChangeError::Failed(failure) = &error else { panic!("{error:?}") };
    assert_eq!((failure.step.as_str(), failure.state), ("migrations.run", FailureState::Undone));
    assert!(failure.cause.to_string().contains('3'), "the error does not name version 3: {}", failure.cause);
    assert_eq!(new.migration_status("acme").await.unwrap().state, MigrationState::Behind { pending: vec![3] });
    assert_no_migrator(&harness).await;
    new.resolve("acme").await.unwrap().execute("SELECT done FROM notes").await.unwrap();

    let fixed = harness.tenantry(program(&[NOTES, DONE, INDEX])).await.unwrap();
    assert_eq!(fixed.migrate("acme").await.unwrap().to, Some(3));
}

#[tokio::test]
async fn interrupted_no_transaction_migration_parks_the_operation_until_a_human_resumes_it() {
    let harness = Harness::start().await.unwrap();
    let old = harness.tenantry(program(&[NOTES])).await.unwrap();
    old.provision("acme").await.unwrap();
    old.resolve("acme").await.unwrap().execute("INSERT INTO notes (text) VALUES ('a'), ('a')").await.unwrap();
    let unique = "-- no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY notes_text ON notes (text)";
    let new = harness.tenantry(program(&[NOTES, unique])).await.unwrap();
    // CREATE INDEX CONCURRENTLY leaves an invalid index when it fails. The crate cannot know how to repair it.
    let error = new.migrate("acme").await.unwrap_err();
    assert_eq!(new.migration_status("acme").await.unwrap().state, MigrationState::Unfinished { version: 2 });
    let ChangeError::Failed(failure) = &error else { panic!("{error:?}") };
    assert_eq!(failure.state, FailureState::ParkedBeforePivot);
    let parked = new.operations().get(failure.operation).await.unwrap().unwrap();
    assert_eq!(parked.status, OperationStatus::Parked);
    assert!(
        matches!(new.migrate("acme").await, Err(ChangeError::Busy { .. })),
        "the parked operation does not occupy the lane"
    );
    assert_no_migrator_logs_in(&harness).await;
    // Nothing is repaired yet, so the resumed operation parks again.
    assert_eq!(new.operations().resume(failure.operation).await.unwrap().status, OperationStatus::Parked);

    let owner = auditor::login(&new, "acme").await.get_database().unwrap().to_owned();
    let mut dba = harness.server().admin_options().database(&owner).connect().await.unwrap();
    dba.execute("DROP INDEX notes_text; DELETE FROM notes; DELETE FROM _sqlx_migrations WHERE version = 2")
        .await
        .unwrap();
    let resumed = new.operations().resume(failure.operation).await.unwrap();
    assert_eq!(resumed.status, OperationStatus::Done);
    assert_eq!(new.migration_status("acme").await.unwrap().state, MigrationState::AtHead);
    assert_no_migrator(&harness).await;
}

#[tokio::test]
async fn migrate_all_migrates_active_tenants_and_reports_each_result() {
    let harness = Harness::start().await.unwrap();
    let old = harness.tenantry(program(&[NOTES])).await.unwrap();
    for slug in ["behind-1", "behind-2", "changed", "suspended"] {
        old.provision(slug).await.unwrap();
    }
    let new = harness.tenantry(program(&[NOTES, DONE])).await.unwrap();
    new.provision("at-head").await.unwrap();
    new.suspend("suspended").await.unwrap();
    let changed = auditor::login(&new, "changed").await.get_database().unwrap().to_owned();
    let mut dba = harness.server().admin_options().database(&changed).connect().await.unwrap();
    dba.execute("UPDATE _sqlx_migrations SET checksum = '\\x00'").await.unwrap();
    assert_eq!(new.migration_status("changed").await.unwrap().state, MigrationState::Changed { version: 1 });

    let seen = Arc::new(Mutex::new(vec![]));
    let sink = seen.clone();
    let batch = new.migrate_all().concurrency(2);
    let report =
        batch.on_result(move |t, r| sink.lock().unwrap().push((t.slug().to_string(), r.is_ok()))).await.unwrap();
    let mut done: Vec<_> = report.done.iter().map(|(t, m)| (t.slug().as_str(), m.from, m.to)).collect();
    done.sort_unstable();
    assert_eq!(done, [("behind-1", Some(1), Some(2)), ("behind-2", Some(1), Some(2))]);
    assert_eq!(report.unchanged, 1, "only the tenant at-head counts as unchanged");
    let [(tenant, error)] = &report.failed[..] else { panic!("{:?}", report.failed) };
    assert_eq!(tenant.slug().as_str(), "changed");
    assert!(matches!(error, ChangeError::Failed(_)), "{error:?}");
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    let expected = [("behind-1", true), ("behind-2", true), ("changed", false)].map(|(s, ok)| (s.to_owned(), ok));
    assert_eq!(seen, expected);
    assert_no_migrator(&harness).await;
    let again = new.migrate_all().await.unwrap();
    assert_eq!((again.done.len(), again.unchanged, again.failed.len()), (0, 3, 1));
}

/// Two nodes deploy at the same moment. Each tenant is migrated once, and neither node reports a failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_migrate_all_on_two_nodes_migrates_each_tenant_once() {
    let harness = Harness::start().await.unwrap();
    let old = harness.tenantry(program(&[NOTES])).await.unwrap();
    for n in 0..4 {
        old.provision(format!("tenant-{n}")).await.unwrap();
    }
    let one = harness.tenantry(program(&[NOTES, DONE])).await.unwrap();
    let two = harness.tenantry(program(&[NOTES, DONE])).await.unwrap();
    let (a, b) = tokio::join!(one.migrate_all().into_future(), two.migrate_all().into_future());
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(a.failed.is_empty() && b.failed.is_empty(), "{a:?} {b:?}");
    assert_eq!(auditor::operations(harness.landlord(), "migrate", "undone").await, 0);
    for n in 0..4 {
        assert_eq!(one.migration_status(&format!("tenant-{n}")).await.unwrap().state, MigrationState::AtHead);
    }
    assert_no_migrator(&harness).await;
}

#[tokio::test]
async fn migrate_without_migrations_or_of_an_inactive_tenant_is_refused() {
    let harness = Harness::start().await.unwrap();
    let plain = harness.tenantry(|b| b).await.unwrap();
    plain.provision("acme").await.unwrap();
    assert!(matches!(plain.migrate("acme").await, Err(ChangeError::NoMigrations)));
    assert!(matches!(plain.migration_status("acme").await, Err(ChangeError::NoMigrations)));
    let tenantry = harness.tenantry(program(&[NOTES])).await.unwrap();
    let none = tenantry.migration_status("acme").await.unwrap();
    assert_eq!((none.applied, none.state), (None, MigrationState::Behind { pending: vec![1] }));
    tenantry.suspend("acme").await.unwrap();
    assert!(matches!(tenantry.migrate("acme").await, Err(ChangeError::Status { .. })));
    assert!(matches!(tenantry.migration_status("acme").await, Err(ChangeError::Status { .. })));
    assert!(matches!(tenantry.migrate("nobody").await, Err(ChangeError::Unknown)));
    tenantry.activate("acme").await.unwrap();
    assert_eq!(tenantry.migrate("acme").await.unwrap().from, None, "the first migrations of this tenant did not run");
}

/// Waits until a session of a migrator role runs a statement that contains this text.
pub(crate) async fn running(harness: &Harness, statement: &str) {
    const RUNS: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity
        WHERE usename LIKE '%\\_mig' AND state = 'active' AND query LIKE $1)";
    let mut server = auditor::superuser(harness).await;
    let runs = format!("%{statement}%");
    while !sqlx::query_scalar::<_, bool>(RUNS).bind(&runs).fetch_one(&mut server).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A suspension does not wait for a running migration: it terminates the session and parks the operation. Activation
/// resumes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspend_parks_a_running_migration_and_activate_resumes_it() {
    let harness = Harness::start().await.unwrap();
    let old = harness.tenantry(program(&[NOTES])).await.unwrap();
    old.provision("acme").await.unwrap();
    // The migration waits for a lock that the test holds, until the test releases it before the activation.
    const SLOW: &str = "SELECT pg_advisory_xact_lock_shared(4711); ALTER TABLE notes ADD COLUMN late int";
    let new = harness.tenantry(program(&[NOTES, SLOW])).await.unwrap();
    let mut tenant = auditor::login(&new, "acme").await;
    tenant = tenant.application_name("the test");
    let database = tenant.get_database().unwrap().to_owned();
    let mut holder = harness.server().admin_options().database(&database).connect().await.unwrap();
    holder.execute("SELECT pg_advisory_lock(4711)").await.unwrap();
    let id = new.migrate("acme").start().await.unwrap();
    running(&harness, "4711").await;

    let begun = std::time::Instant::now();
    Tenantry::suspend(&old, "acme").await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "the suspension waited for the migration: {:?}", begun.elapsed());
    let parked = new.operations().get(id).await.unwrap().unwrap();
    assert_eq!(parked.status, OperationStatus::Parked);
    assert_eq!(code(&tenant.connect().await.unwrap_err()), "28000");
    holder.execute("SELECT pg_advisory_unlock(4711)").await.unwrap();

    new.activate("acme").await.unwrap();
    for _ in 0..100 {
        new.operations().recover().await.unwrap();
        if new.operations().open().await.unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ended = new.operations().get(id).await.unwrap().unwrap();
    assert_eq!(ended.status, OperationStatus::Done, "{ended:?}");
    assert_eq!(new.migration_status("acme").await.unwrap().state, MigrationState::AtHead);
    assert_no_migrator(&harness).await;
}

/// A session that is still connecting shows no login yet: it may be the migrator's, which is dropped at the end of a
/// migration, or the application's.
#[tokio::test]
async fn migrate_leaves_an_application_session_alone_that_is_still_connecting() {
    const CONNECTING: &str = "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.objid
        WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND d.datname = $1
          AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.usesysid IS NOT NULL))";
    let harness = Harness::start().await.unwrap();
    harness.tenantry(program(&[NOTES])).await.unwrap().provision("acme").await.unwrap();
    let tenantry = harness.tenantry(program(&[NOTES, DONE])).await.unwrap();
    let login = auditor::login(&tenantry, "acme").await;
    let database = login.get_database().unwrap().to_owned();
    // The server waits for a second after it has checked the password.
    let connecting = tokio::spawn(async move { login.options([("post_auth_delay", "1")]).connect().await });
    let mut admin = auditor::superuser(&harness).await;
    let limit = std::time::Instant::now() + Duration::from_secs(30);
    while !sqlx::query_scalar::<_, bool>(CONNECTING).bind(&database).fetch_one(&mut admin).await.unwrap() {
        assert!(std::time::Instant::now() < limit, "the session did not begin to connect");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tenantry.migrate("acme").await.unwrap();
    let mut session = connecting.await.unwrap().expect("the migration must not terminate the connecting session");
    session.execute("SELECT text, done FROM notes").await.unwrap();
}
