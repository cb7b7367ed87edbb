//! A worker that dies after any step of a provisioning or of its undo. Recovery completes the operation: the tenant is
//! then either whole, or nothing of it is left.
use crate::auditor::{self, assert_nothing};
use crate::provision::migrated;
use sqlx::Executor;
use std::time::Duration;
use tenantry::journal::PgJournal;
use tenantry::operation::OperationStatus;
use tenantry::provision::{Provision, ProvisionConfig, Provisioner};
use tenantry::saga::{CallOptions, Engine, Settings};
use tenantry::testing::Harness;
use tenantry::{Tenantry, sqlx};
use tokio_util::sync::CancellationToken;

/// Runs a provisioning in a task that dies when its `n`-th event has been written. The panic unwinds from the observer,
/// so the worker sends nothing more to any server.
async fn die_after(provisioner: &Provisioner, slug: &str, n: i64) {
    let options = CallOptions::new().key(slug).on_event(move |event| {
        if event.seq == n {
            // Unwinds like a panic, but prints no message.
            std::panic::resume_unwind(Box::new("died"));
        }
    });
    let request = Provision::new(slug).admin(format!("ada@{slug}.example"));
    let provisioner = provisioner.clone();
    let worker = tokio::spawn(async move { provisioner.provision(request, &options).await });
    assert!(worker.await.expect_err("the worker dies before the operation ends").is_panic());
}

/// A provisioner without the facade. It spawns no tasks, so a panic of its caller ends all of its work.
pub(crate) fn provisioner(harness: &Harness, context: tenantry::OperationContext) -> Provisioner {
    let mut settings = Settings::default();
    settings.lease = Duration::from_secs(3);
    let journal = std::sync::Arc::new(PgJournal::new(harness.landlord().clone()));
    let engine = Engine::new(journal, vec![], settings, CancellationToken::new());
    let mut config = ProvisionConfig::default();
    config.migrations = Some(&crate::provision::MIGRATIONS);
    Provisioner::with_engine(context, engine, config)
}

/// Runs recovery until no operation is open. Dead workers keep their leases until these expire.
async fn recover_all(tenantry: &Tenantry) {
    for _ in 0..600 {
        tenantry.operations().recover().await.unwrap();
        if tenantry.operations().open().await.unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("operations are still open after a minute of recovery: {:?}", tenantry.operations().open().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_completes_a_provisioning_whose_worker_died_after_any_step() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| migrated(b).lease(Duration::from_secs(3))).await.unwrap();
    let provisioner = provisioner(&harness, tenantry.operation_context());
    let whole = tenantry.provision("whole").await.unwrap();
    let steps = tenantry.operations().get(whole.operation).await.unwrap().unwrap().total;
    assert!(steps > 15, "a provisioning has only {steps} steps");
    for n in 1..i64::from(steps) {
        die_after(&provisioner, &format!("dies-{n}"), n).await;
    }
    let open = tenantry.operations().open().await.unwrap();
    assert_eq!(open.len() as u32, steps - 1, "each dead worker must leave one open operation");
    let reached: std::collections::BTreeSet<u32> = open.iter().map(|o| o.done).collect();
    assert_eq!(reached, (1..steps).collect(), "the numbers of completed steps at which the workers died");
    recover_all(&tenantry).await;
    for n in 1..i64::from(steps) {
        let slug = format!("dies-{n}");
        let db = tenantry.resolve(&slug).await.unwrap_or_else(|e| panic!("{slug}: {e}"));
        db.execute("INSERT INTO notes (text) VALUES ('works')").await.unwrap_or_else(|e| panic!("{slug}: {e}"));
        let admins: i64 = sqlx::query_scalar("SELECT count(*) FROM tenant_users").fetch_one(&db).await.unwrap();
        assert_eq!(admins, 1, "{slug}: number of admins");
    }
    assert_eq!(
        auditor::on_server(&harness).await.len() as u32,
        4 * steps,
        "each tenant must have four objects on the server, and there must be no others"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_completes_an_undo_whose_worker_died_after_any_step() {
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
    let provisioner = Provisioner::with_engine(tenantry.operation_context(), engine, config);
    let error = tenantry.provision("whole").await.unwrap_err();
    let last = tenantry.operations().get(error.operation_id().unwrap()).await.unwrap().unwrap();
    assert_eq!(last.status, OperationStatus::Undone);
    let mut undoing = 0;
    // Twelve steps run. The thirteenth event records the failure and starts the undo; the events of the undo follow.
    for n in 13..26 {
        die_after(&provisioner, &format!("dies-{n}"), n).await;
        undoing += 1;
    }
    let open = tenantry.operations().open().await.unwrap();
    assert_eq!(open.iter().filter(|o| o.status == OperationStatus::Undoing).count(), undoing);
    recover_all(&tenantry).await;
    assert_nothing(&harness, "after the undos were recovered").await;
}
