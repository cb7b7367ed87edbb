//! Recovering operations whose workers died at random steps, compared with provisioning as many tenants.
//!
//! `cargo bench --bench recovery` recovers 200 operations; `-- --full` recovers 1,000. The time until the leases expire
//! is not counted.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results and panics on errors")]
use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tenantry::journal::PgJournal;
use tenantry::provision::{Provision, ProvisionConfig, Provisioner};
use tenantry::saga::{CallOptions, Engine, Settings};
use tenantry::testing::{Harness, TestServer};
use tenantry::{Tenantry, sqlx};
use tokio_util::sync::CancellationToken;

mod ratio;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("benches/migrations");
/// Number of concurrent operations.
const AT_ONCE: usize = 8;
const LEASE: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let full = std::env::args().any(|a| a == "--full");
    let server = TestServer::builder().durable(true).start().await.unwrap();
    println!("{}", server.describe());
    let harness = Harness::on(Box::leak(Box::new(server))).await.unwrap();
    let configure = |b: tenantry::Builder| b.tenant_migrations(&MIGRATIONS).lease(LEASE).workers(AT_ONCE);
    let tenantry = harness.tenantry(configure).await.unwrap();
    let operation = tenantry.provision("first").await.unwrap().operation;
    let steps = i64::from(tenantry.operations().get(operation).await.unwrap().unwrap().total);
    let worker = create_worker(&harness, &tenantry);
    let mut dice = StdRng::seed_from_u64(1);
    let mut ratio = ratio::Ratio::new("recover 8 at once / provision 8 at once", 1.3);
    let rounds = if full { 125 } else { 25 };
    for round in 0..rounds {
        let clock = Instant::now();
        join_all((0..AT_ONCE).map(|n| tenantry.provision(format!("whole-{round}-{n}")).into_future())).await;
        let reference = clock.elapsed();
        let points: Vec<i64> = (0..AT_ONCE).map(|_| dice.random_range(1..steps)).collect();
        join_all(
            points.iter().enumerate().map(|(n, at)| provision_until_event(&worker, format!("cut-{round}-{n}"), *at)),
        )
        .await;
        let open = tenantry.operations().open().await.unwrap().len();
        assert_eq!(open, AT_ONCE, "every killed worker leaves exactly one open operation");
        tokio::time::sleep(LEASE).await;
        let clock = Instant::now();
        while !tenantry.operations().open().await.unwrap().is_empty() {
            tenantry.operations().recover().await.unwrap();
        }
        ratio.add_pair(clock.elapsed(), reference);
    }
    let active: i64 = sqlx::query_scalar("SELECT count(*) FROM tenantry.tenants WHERE status = 'active'")
        .fetch_one(harness.landlord())
        .await
        .unwrap();
    assert_eq!(active as usize, 1 + 2 * AT_ONCE * rounds, "some operation was not recovered: its tenant is not active");
    println!("{} operations recovered", AT_ONCE * rounds);
    ratio::report("recovery", &[ratio]).unwrap();
    tenantry.close().await;
}

/// A provisioner that shares the landlord with `tenantry`, whose operations the benchmark can interrupt.
fn create_worker(harness: &Harness, tenantry: &Tenantry) -> Provisioner {
    let mut settings = Settings::default();
    settings.lease = LEASE;
    let journal = Arc::new(PgJournal::new(harness.landlord().clone()));
    let engine = Engine::new(journal, vec![], settings, CancellationToken::new());
    let mut config = ProvisionConfig::default();
    config.migrations = Some(&MIGRATIONS);
    Provisioner::with_engine(tenantry.operation_context(), engine, config)
}

/// Begins to provision a tenant, and kills the worker at its `n`-th event: the observer panics, which unwinds the task.
async fn provision_until_event(provisioner: &Provisioner, slug: String, n: i64) {
    let options = CallOptions::new().on_event(move |event| {
        if event.seq == n {
            std::panic::resume_unwind(Box::new("worker killed by the benchmark"));
        }
    });
    let provisioner = provisioner.clone();
    let killed = tokio::spawn(async move { provisioner.provision(Provision::new(slug), &options).await.map(drop) });
    assert!(killed.await.unwrap_err().is_panic(), "the worker was not killed");
}
