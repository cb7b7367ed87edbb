//! Tenants that tenantry cannot work on: without placement, without a primary entry, or with a driver that is not
//! implemented. Each call refuses them with a typed error before it writes anything, and no operation stays open.
use crate::fail_closed::{primary_entry, register_unmanaged};
use crate::migrate::{migrations, running};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection};
use std::time::Duration;
use tenantry::directory::{DatabaseStatus, Driver};
use tenantry::error::{ChangeError, ResolveError};
use tenantry::operation::{OperationId, OperationStatus};
use tenantry::registry::TenantRegistry;
use tenantry::testing::Harness;
use tenantry::{Builder, Tenantry, sqlx};

fn configure(builder: Builder) -> Builder {
    crate::provision::migrated(builder).lease(Duration::from_secs(2))
}

const VERBS: [&str; 9] =
    ["migrate", "migration_status", "rotate", "temporary_login", "suspend", "archive", "purge", "activate", "restore"];

/// Makes the call and returns its error.
async fn call(tenantry: &Tenantry, verb: &str, slug: &str) -> Result<(), ChangeError> {
    match verb {
        "migrate" => tenantry.migrate(slug).await.map(drop),
        "migration_status" => tenantry.migration_status(slug).await.map(drop),
        "rotate" => tenantry.rotate(slug).await.map(drop),
        "temporary_login" => tenantry.temporary_login(slug).await.map(drop),
        "suspend" => tenantry.suspend(slug).await.map(drop),
        "archive" => tenantry.archive(slug).await.map(drop),
        "purge" => tenantry.purge(slug).force().await.map(drop),
        "activate" => tenantry.activate(slug).await.map(drop),
        "restore" => tenantry.restore(slug).await.map(drop),
        other => panic!("{other}"),
    }
}

async fn set_status(harness: &Harness, slug: &str, status: &str) {
    const SET: &str = "UPDATE tenantry.tenants SET status = $2,
        kept_until = CASE WHEN $2 = 'archived' THEN now() + interval '1 day' END WHERE slug = $1";
    sqlx::query(SET).bind(slug).bind(status).execute(harness.landlord()).await.unwrap();
}

async fn count_operations(harness: &Harness) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM tenantry.operations").fetch_one(harness.landlord()).await.unwrap()
}

#[tokio::test]
async fn every_call_refuses_a_mysql_tenant_as_not_built_before_it_writes_or_connects() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configure).await.unwrap();
    register_unmanaged(&harness, &tenantry, "mysql", Driver::MySql).await;
    let entry = primary_entry(&tenantry, "mysql").await;
    // Nothing may connect to the address of the entry.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    sqlx::query("UPDATE tenantry.tenant_databases SET host = '127.0.0.1', port = $2 WHERE tenant_id = $1")
        .bind(entry.tenant.as_uuid())
        .bind(i32::from(listener.local_addr().unwrap().port()))
        .execute(harness.landlord())
        .await
        .unwrap();
    let before = count_operations(&harness).await;
    for verb in VERBS {
        let status = match verb {
            "activate" => "suspended",
            "restore" => "archived",
            _ => "active",
        };
        set_status(&harness, "mysql", status).await;
        let error = call(&tenantry, verb, "mysql").await.expect_err(verb);
        let ChangeError::NotBuilt { driver: Driver::MySql, .. } = error else { panic!("{verb}: {error:?}") };
        assert!(error.to_string().contains("the driver mysql"), "{verb}: {error}");
        assert_eq!(error.retry_after(), None, "{verb}");
    }
    set_status(&harness, "mysql", "active").await;
    let resolved = tenantry.resolve("mysql").await;
    assert!(matches!(resolved, Err(ResolveError::NotBuilt { driver: Driver::MySql, .. })), "{resolved:?}");
    for report in [tenantry.migrate_all().await.unwrap().failed, tenantry.rotate_all().await.unwrap().failed] {
        assert!(matches!(&report[..], [(_, ChangeError::NotBuilt { .. })]), "{report:?}");
    }
    assert_eq!(count_operations(&harness).await, before, "a refused call has begun an operation");
    let connected = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await;
    assert!(connected.is_err(), "a call has connected to the MySQL server");
}

#[tokio::test]
async fn migrate_and_rotate_refuse_tenants_without_entry_or_placement_before_they_write() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configure).await.unwrap();
    register_unmanaged(&harness, &tenantry, "theirs", Driver::Postgres).await;
    for slug in ["no-entry", "no-placement"] {
        tenantry.provision(slug).await.unwrap();
    }
    let mut dropped = primary_entry(&tenantry, "no-entry").await;
    dropped.status = DatabaseStatus::Dropped;
    tenantry.registry_writer().put_database(Some(dropped.generation), &dropped, None).await.unwrap();
    remove_placement(&harness, &tenantry, "no-placement").await;
    let before = count_operations(&harness).await;
    for slug in ["theirs", "no-entry", "no-placement"] {
        for verb in ["migrate", "rotate", "temporary_login"] {
            let error = call(&tenantry, verb, slug).await.expect_err(slug);
            let is_expected = match slug {
                "no-entry" => matches!(error, ChangeError::NoEntry),
                _ => matches!(error, ChangeError::NotProvisioned { .. }),
            };
            assert!(is_expected, "{verb} {slug}: {error:?}");
            assert_eq!(error.retry_after(), None, "{verb} {slug}");
        }
    }
    assert!(matches!(tenantry.migration_status("no-entry").await, Err(ChangeError::NoEntry)));
    assert_eq!(count_operations(&harness).await, before, "a refused call has begun an operation");
}

/// Removes the placement as a person would do it by SQL.
async fn remove_placement(harness: &Harness, tenantry: &Tenantry, slug: &str) {
    let tenant = tenantry.registry().find(slug.into()).await.unwrap().unwrap().id();
    let delete = sqlx::query("DELETE FROM tenantry.placements WHERE tenant_id = $1").bind(tenant.as_uuid());
    assert_eq!(delete.execute(harness.landlord()).await.unwrap().rows_affected(), 1);
}

async fn wait_until_over(tenantry: &Tenantry, id: OperationId) -> OperationStatus {
    let until = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let state = tenantry.operations().get(id).await.unwrap().unwrap();
        if state.status.is_over() {
            return state.status;
        }
        assert!(std::time::Instant::now() < until, "the operation does not end: {state:?}");
        tenantry.operations().recover().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undo_of_a_migration_ends_although_the_placement_was_removed_meanwhile() {
    let harness = Harness::start().await.unwrap();
    const NOTES: &str = "CREATE TABLE notes (text text)";
    let (old, new) =
        (migrations(&[NOTES]), migrations(&[NOTES, "SELECT pg_advisory_xact_lock_shared(4713); SELECT 1/0"]));
    harness.tenantry(move |b| b.tenant_migrations(old)).await.unwrap().provision("acme").await.unwrap();
    let tenantry = harness.tenantry(move |b| b.tenant_migrations(new)).await.unwrap();
    let database = primary_entry(&tenantry, "acme").await.database;
    let mut holder = harness.server().admin_options().database(database.as_str()).connect().await.unwrap();
    holder.execute("SELECT pg_advisory_lock(4713)").await.unwrap();
    let id = tenantry.migrate("acme").start().await.unwrap();
    running(&harness, "4713").await;
    remove_placement(&harness, &tenantry, "acme").await;
    holder.close().await.unwrap();
    assert_eq!(wait_until_over(&tenantry, id).await, OperationStatus::Undone);
    assert!(matches!(tenantry.migrate("acme").await, Err(ChangeError::NotProvisioned { .. })));
}

/// The rotation has stored its new login and waits for a table lock in the landlord when it is parked.
#[tokio::test]
async fn undo_of_a_rotation_without_placement_leaves_the_new_login_to_the_retirement_queue() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configure).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let mut landlord: PgConnection = harness.landlord().connect_options().connect().await.unwrap();
    landlord.execute("BEGIN; LOCK TABLE tenantry.credentials IN EXCLUSIVE MODE").await.unwrap();
    let id = tenantry.rotate("acme").start().await.unwrap();
    const WAITS: &str = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted
        AND relation = 'tenantry.credentials'::regclass)";
    while !sqlx::query_scalar::<_, bool>(WAITS).fetch_one(&mut landlord).await.unwrap() {
        tokio::task::yield_now().await;
    }
    tenantry.suspend("acme").await.unwrap();
    landlord.execute("ROLLBACK").await.unwrap();
    remove_placement(&harness, &tenantry, "acme").await;

    tenantry.operations().undo(id).await.unwrap();
    assert_eq!(wait_until_over(&tenantry, id).await, OperationStatus::Undone);
    assert_eq!(users(&harness, "retiring").await, 1, "the new login is not in the retirement queue");
    tenantry.retire_due().await.unwrap();
    assert_eq!((users(&harness, "retiring").await, users(&harness, "pending").await), (0, 0));
}

/// Number of logins with this status in the landlord.
async fn users(harness: &Harness, status: &str) -> i64 {
    const COUNT: &str = "SELECT count(*) FROM tenantry.tenant_database_users WHERE status = $1";
    sqlx::query_scalar(COUNT).bind(status).fetch_one(harness.landlord()).await.unwrap()
}

#[tokio::test]
async fn suspend_activate_and_purge_work_for_a_tenant_without_entry_and_placement() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configure).await.unwrap();
    let id = register_unmanaged(&harness, &tenantry, "bare", Driver::Postgres).await;
    let mut dropped = tenantry.registry().primary(id).await.unwrap().unwrap();
    dropped.status = DatabaseStatus::Dropped;
    tenantry.registry_writer().put_database(Some(dropped.generation), &dropped, None).await.unwrap();
    for verb in ["suspend", "activate", "archive", "restore", "purge"] {
        call(&tenantry, verb, "bare").await.unwrap_or_else(|error| panic!("{verb}: {error:?}"));
    }
    assert!(tenantry.operations().open().await.unwrap().is_empty());
}
