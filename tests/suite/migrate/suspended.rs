//! Migrating suspended tenants: they stay closed to their own login, and other operations on them stay safe.
use super::{DONE, NOTES, assert_no_migrator, program, running};
use crate::auditor::{self, code};
use sqlx::{ConnectOptions, Executor};
use std::time::Duration;
use tenantry::error::ChangeError;
use tenantry::migrate::MigrationState;
use tenantry::operation::{OperationId, OperationStatus};
use tenantry::tenant::TenantStatus;
use tenantry::testing::Harness;
use tenantry::{Tenantry, sqlx};

#[tokio::test]
async fn suspended_tenants_are_migrated_on_request_and_stay_closed() {
    let harness = Harness::start().await.unwrap();
    let old = harness.tenantry(program(&[NOTES])).await.unwrap();
    for slug in ["active", "suspended"] {
        old.provision(slug).await.unwrap();
    }
    let new = harness.tenantry(program(&[NOTES, DONE])).await.unwrap();
    let login = auditor::login(&new, "suspended").await;
    new.suspend("suspended").await.unwrap();
    assert!(matches!(new.migrate("suspended").await, Err(ChangeError::Status { found: TenantStatus::Suspended, .. })));

    let report = new.migrate_all().include_suspended().await.unwrap();
    assert!(report.failed.is_empty(), "{report:?}");
    let mut done: Vec<_> = report.done.iter().map(|(t, m)| (t.slug().as_str(), m.applied.clone())).collect();
    done.sort();
    assert_eq!(done, [("active", vec![2]), ("suspended", vec![2])]);
    assert_eq!(report.suspended, 0, "{report:?}");
    assert_eq!(code(&login.connect().await.unwrap_err()), "28000", "the suspended tenant's login can connect");
    assert_eq!(status_of(&new, "suspended").await, TenantStatus::Suspended);
    assert_no_migrator(&harness).await;

    let again = new.migrate_all().include_suspended().await.unwrap();
    assert_eq!((again.done.len(), again.unchanged), (0, 2), "{again:?}");
    let report = old.migrate_all().include_suspended().await.unwrap();
    assert_eq!((report.ahead, report.failed.len()), (2, 0), "{report:?}");
    new.activate("suspended").await.unwrap();
    assert_eq!(new.migration_status("suspended").await.unwrap().state, MigrationState::AtHead);
    new.resolve("suspended").await.unwrap().execute("SELECT done FROM notes").await.unwrap();
}

async fn status_of(tenantry: &Tenantry, slug: &str) -> TenantStatus {
    tenantry.registry().find(slug.into()).await.unwrap().unwrap().status()
}

/// The migration waits for a lock that the test holds.
const SLOW: &str = "SELECT pg_advisory_xact_lock_shared(4712); ALTER TABLE notes ADD COLUMN late int";

/// Suspends the tenant and begins to migrate it; the migration waits for the lock of the returned session.
async fn begin_slow_migration(harness: &Harness) -> (Tenantry, OperationId, sqlx::PgConnection) {
    harness.tenantry(program(&[NOTES])).await.unwrap().provision("acme").await.unwrap();
    let tenantry = harness.tenantry(program(&[NOTES, SLOW])).await.unwrap();
    let database = auditor::login(&tenantry, "acme").await.get_database().unwrap().to_owned();
    let mut holder = harness.server().admin_options().database(&database).connect().await.unwrap();
    holder.execute("SELECT pg_advisory_lock(4712)").await.unwrap();
    tenantry.suspend("acme").await.unwrap();
    let id = tenantry.migrate("acme").include_suspended().start().await.unwrap();
    running(harness, "4712").await;
    (tenantry, id, holder)
}

async fn wait_for(tenantry: &Tenantry, id: OperationId, status: OperationStatus) {
    for _ in 0..300 {
        tenantry.operations().recover().await.unwrap();
        if tenantry.operations().get(id).await.unwrap().unwrap().status == status {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{:?}", tenantry.operations().get(id).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn activate_waits_for_the_migration_of_a_suspended_tenant() {
    let harness = Harness::start().await.unwrap();
    let (tenantry, id, mut holder) = begin_slow_migration(&harness).await;
    let refused = tenantry.activate("acme").await.unwrap_err();
    assert!(matches!(refused, ChangeError::Busy { operation, .. } if operation == id), "{refused:?}");
    assert_eq!(status_of(&tenantry, "acme").await, TenantStatus::Suspended);
    holder.execute("SELECT pg_advisory_unlock(4712)").await.unwrap();
    wait_for(&tenantry, id, OperationStatus::Done).await;
    let events = tenantry.operations().get(id).await.unwrap().unwrap();
    assert_eq!(events.error, None, "the refused activation disturbed the migration");
    tenantry.activate("acme").await.unwrap();
    tenantry.resolve("acme").await.unwrap().execute("SELECT late FROM notes").await.unwrap();
    assert_no_migrator(&harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archive_parks_the_migration_of_a_suspended_tenant_and_restore_resumes_it() {
    let harness = Harness::start().await.unwrap();
    let (tenantry, id, mut holder) = begin_slow_migration(&harness).await;
    tenantry.archive("acme").await.unwrap();
    assert_eq!(tenantry.operations().get(id).await.unwrap().unwrap().status, OperationStatus::Parked);
    holder.execute("SELECT pg_advisory_unlock(4712)").await.ok();
    tenantry.restore("acme").await.unwrap();
    wait_for(&tenantry, id, OperationStatus::Done).await;
    tenantry.resolve("acme").await.unwrap().execute("SELECT late FROM notes").await.unwrap();
    assert_no_migrator(&harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purge_ends_the_migration_of_a_suspended_tenant() {
    let harness = Harness::start().await.unwrap();
    let (tenantry, id, holder) = begin_slow_migration(&harness).await;
    drop(holder);
    tenantry.purge("acme").force().await.unwrap();
    assert!(tenantry.operations().get(id).await.unwrap().unwrap().status.is_over());
    auditor::assert_nothing(&harness, "after the purge").await;
}
