//! `require_head`: a tenant resolves only if its database has run every migration of the program, as the program has
//! it, and is checked again when it may have changed.
use crate::auditor;
use crate::fail_closed::run_sql;
use crate::migrate::migrations;
use sqlx::migrate::Migrator;
use sqlx::{ConnectOptions, Executor, PgConnection};
use tenantry::error::ResolveError;
use tenantry::migrate::MigrationState;
use tenantry::testing::Harness;
use tenantry::{Tenantry, sqlx};

const TEXTS: [&str; 3] =
    ["CREATE TABLE a (x int)", "CREATE TABLE IF NOT EXISTS b (x int)", "CREATE TABLE IF NOT EXISTS c (x int)"];

async fn node(harness: &Harness, migrator: &'static Migrator) -> Tenantry {
    harness.tenantry(move |b| b.tenant_migrations(migrator).require_head(true)).await.unwrap()
}

/// A superuser's session in the tenant's database.
async fn inside(harness: &Harness, tenantry: &Tenantry, slug: &str) -> PgConnection {
    let database = auditor::login(tenantry, slug).await.get_database().unwrap().to_owned();
    harness.server().admin_options().database(&database).connect().await.unwrap()
}

#[tokio::test]
async fn tenant_with_a_gap_below_its_newest_version_resolves_only_after_migrate() {
    let harness = Harness::start().await.unwrap();
    let tenantry = node(&harness, migrations(&TEXTS)).await;
    tenantry.provision("acme").await.unwrap();
    let mut dba = inside(&harness, &tenantry, "acme").await;
    run_sql(&mut dba, "DROP TABLE b; DELETE FROM _sqlx_migrations WHERE version = 2").await;

    let refused = tenantry.resolve("acme").await;
    assert!(matches!(&refused, Err(ResolveError::Behind(_))), "{refused:?}");
    let status = tenantry.migration_status("acme").await.unwrap();
    assert_eq!((status.applied, status.state), (Some(3), MigrationState::Behind { pending: vec![2] }));
    let report = tenantry.migrate_all().await.unwrap();
    assert_eq!(report.done.iter().map(|(_, m)| m.applied.clone()).collect::<Vec<_>>(), [vec![2]], "{report:?}");
    tenantry.resolve("acme").await.unwrap().execute("SELECT x FROM b").await.unwrap();
}

#[tokio::test]
async fn changed_or_unfinished_versions_of_the_program_refuse_and_those_of_a_newer_one_do_not() {
    let harness = Harness::start().await.unwrap();
    for (slug, change, unusable) in [
        ("changed", "UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 1", Some(1)),
        ("unfinished", "UPDATE _sqlx_migrations SET success = false WHERE version = 2", Some(2)),
        ("newer", "UPDATE _sqlx_migrations SET version = 4, success = false WHERE version = 3", None),
    ] {
        let tenantry = node(&harness, migrations(&TEXTS)).await;
        tenantry.provision(slug).await.unwrap();
        let mut dba = inside(&harness, &tenantry, slug).await;
        run_sql(&mut dba, change).await;
        let Some(unusable) = unusable else {
            let older = node(&harness, migrations(&TEXTS[..2])).await;
            older.resolve(slug).await.expect("an older program serves a tenant that a newer one is migrating");
            continue;
        };
        let error = tenantry.resolve(slug).await.unwrap_err();
        assert!(matches!(error, ResolveError::UnusableMigration { version, .. } if version == unusable), "{error:?}");
        assert_eq!(error.retry_after(), None, "{slug}: migrating again does not help");
    }
}

#[tokio::test]
async fn tenant_that_is_restored_from_an_older_backup_while_suspended_is_checked_again() {
    let harness = Harness::start().await.unwrap();
    let migrator = migrations(&TEXTS);
    let (tenantry, operator) = (node(&harness, migrator).await, node(&harness, migrator).await);
    let running = tokio::spawn(tenantry.run(std::future::pending::<()>()));
    tenantry.provision("acme").await.unwrap();
    tenantry.resolve("acme").await.unwrap();
    operator.suspend("acme").await.unwrap();
    let mut dba = inside(&harness, &tenantry, "acme").await;
    run_sql(&mut dba, "DROP TABLE c; DELETE FROM _sqlx_migrations WHERE version = 3").await;
    operator.activate("acme").await.unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        match tenantry.resolve("acme").await {
            Err(ResolveError::Behind(_)) => break,
            // The notification of the activation is still on its way.
            Err(ResolveError::Suspended(_)) if std::time::Instant::now() < until => tokio::task::yield_now().await,
            other => panic!("a tenant that lacks a migration resolved: {other:?}"),
        }
    }
    running.abort();
}
