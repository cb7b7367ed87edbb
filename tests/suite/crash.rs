//! A worker that dies at any step: recovery brings its operation to its end, or leaves nothing.
use crate::auditor::{self, assert_nothing};
use crate::provision::migrated;
use sqlx::Executor;
use std::time::Duration;
use tenantry::journal::PgJournal;
use tenantry::operation::OperationStatus;
use tenantry::provision::{Provision, ProvisionConfig, Provisioner};
use tenantry::saga::{Engine, Observer, Settings};
use tenantry::testing::Harness;
use tenantry::{Tenantry, sqlx};
use tokio_util::sync::CancellationToken;

/// Drives a provisioning in a task that dies when it has written its `n`-th event: it unwinds from the very line that
/// heard of it, so not one more byte goes to a server.
async fn die_after(provisioner: &Provisioner, slug: &str, n: i64) {
    let observer = Observer::new(move |event| {
        if event.seq == n {
            // As a panic, but silent.
            std::panic::resume_unwind(Box::new("died"));
        }
    });
    let request = Provision::new(slug).admin(format!("ada@{slug}.example")).key(slug);
    let provisioner = provisioner.clone();
    let worker = tokio::spawn(async move { provisioner.provision(request, &observer).await });
    assert!(worker.await.expect_err("it went on to its end").is_panic());
}

/// The piece alone, which spawns nothing.
pub(crate) fn provisioner(harness: &Harness, workshop: tenantry::OperationContext) -> Provisioner {
    let mut settings = Settings::default();
    settings.lease = Duration::from_secs(3);
    let journal = std::sync::Arc::new(PgJournal::new(harness.landlord().clone()));
    let engine = Engine::new(journal, vec![], settings, CancellationToken::new());
    let mut config = ProvisionConfig::default();
    config.migrations = Some(&crate::provision::MIGRATIONS);
    Provisioner::new(workshop, engine, config)
}

/// Until nothing is open; a lease that still runs is waited for.
async fn recover(tenantry: &Tenantry) {
    for _ in 0..600 {
        tenantry.operations().recover().await.unwrap();
        if tenantry.operations().open().await.unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("still open: {:?}", tenantry.operations().open().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_after_any_step_leaves_a_whole_tenant() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| migrated(b).lease(Duration::from_secs(3))).await.unwrap();
    let provisioner = provisioner(&harness, tenantry.workshop());
    let whole = tenantry.provision("whole").await.unwrap();
    let steps = tenantry.operations().get(whole.operation).await.unwrap().unwrap().total;
    assert!(steps > 15);
    for n in 1..i64::from(steps) {
        die_after(&provisioner, &format!("dies-{n}"), n).await;
    }
    let open = tenantry.operations().open().await.unwrap();
    assert_eq!(open.len() as u32, steps - 1, "each died where it was meant to");
    let reached: std::collections::BTreeSet<u32> = open.iter().map(|o| o.done).collect();
    assert_eq!(reached, (1..steps).collect());
    recover(&tenantry).await;
    for n in 1..i64::from(steps) {
        let slug = format!("dies-{n}");
        let db = tenantry.resolve(&slug).await.unwrap_or_else(|e| panic!("{slug}: {e}"));
        db.execute("INSERT INTO notes (text) VALUES ('works')").await.unwrap_or_else(|e| panic!("{slug}: {e}"));
        let admins: i64 = sqlx::query_scalar("SELECT count(*) FROM tenant_users").fetch_one(&db).await.unwrap();
        assert_eq!(admins, 1, "{slug}");
    }
    assert_eq!(auditor::on_server(&harness).await.len() as u32, 4 * steps, "nothing beside whole tenants");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_in_its_undo_leaves_nothing() {
    static BROKEN: sqlx::migrate::Migrator = sqlx::migrate!("tests/suite/broken_migrations");
    let harness = Harness::start().await.unwrap();
    let configure = |b: tenantry::Builder| b.tenant_migrations(&BROKEN).lease(Duration::from_secs(3));
    let tenantry = harness.tenantry(configure).await.unwrap();
    let mut settings = Settings::default();
    settings.lease = Duration::from_secs(3);
    let journal = std::sync::Arc::new(PgJournal::new(harness.landlord().clone()));
    let engine = Engine::new(journal, vec![], settings, CancellationToken::new());
    let mut config = ProvisionConfig::default();
    config.migrations = Some(&BROKEN);
    let provisioner = Provisioner::new(tenantry.workshop(), engine, config);
    let error = tenantry.provision("whole").await.unwrap_err();
    let last = tenantry.operations().get(error.operation_id().unwrap()).await.unwrap().unwrap();
    assert_eq!(last.status, OperationStatus::Undone);
    let mut undoing = 0;
    // Twelve steps run, then one event turns it around, then the undo's events follow.
    for n in 13..26 {
        die_after(&provisioner, &format!("dies-{n}"), n).await;
        undoing += 1;
    }
    let open = tenantry.operations().open().await.unwrap();
    assert_eq!(open.iter().filter(|o| o.status == OperationStatus::Undoing).count(), undoing);
    recover(&tenantry).await;
    assert_nothing(&harness, "after undos that died").await;
}
