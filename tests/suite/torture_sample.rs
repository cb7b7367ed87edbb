//! A short run of `examples/torture`: a few points of each saga, each with another fault.
//!
//! The full run is the example itself. This file includes its modules and uses this test binary as the child process.
use tenantry::testing::server::NoServer;
use tenantry::testing::{Harness, TestServer};
use tenantry::tokens::PgTokenStore;

#[path = "../../examples/torture/torture/mod.rs"]
mod torture;

/// The entry point of the child process that the sample starts and kills. In an ordinary test run it passes at once.
#[test]
fn child() {
    if let Some(task) = torture::Task::from_env().unwrap() {
        torture::run_child(task).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torture_sample_leaves_no_partial_tenant() {
    if let Err(NoServer::Local(error)) = TestServer::builder().local_only().start().await {
        println!("!!! SKIPPED: the torture crashes servers and needs local PostgreSQL binaries: {error} !!!");
        return;
    }
    let sagas =
        ["provision", "undo-recovery", "archive", "purge", "migrate", "rotate", "credentials-link", "password-link"]
            .map(|saga| ["--saga", saga]);
    let arguments =
        ["--runs", "18", "--seed", "20261124", "--lanes", "2"].into_iter().chain(sagas.into_iter().flatten());
    let options = torture::Options::parse(arguments.map(String::from)).unwrap();
    let child = || {
        let mut child = tokio::process::Command::new(std::env::current_exe()?);
        child.args(["--exact", "torture_sample::child", "--nocapture", "--test-threads=1"]);
        Ok(child)
    };
    let report = torture::torture(&options, child, |line| println!("{line}")).await.unwrap();
    let violations: Vec<_> = report.violations().collect();
    assert!(report.is_clean(), "{}\n{violations:#?}", report.table());
    assert_eq!(report.runs(), 18);
    assert!(
        report.missed() <= 2,
        "more than two faults were not reached; the recorded points are out of date: {}",
        report.table()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_token_is_claimed_once_and_each_link_is_followed_once() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| b).await.unwrap();
    let acme = tenantry.provision("acme").await.unwrap().tenant.id();
    let store = PgTokenStore::new(torture::once::wide(&harness).await.unwrap());
    let violations = torture::once::tokens(&store, acme, 32, 100).await.unwrap();
    assert_eq!(violations, 0, "tokens that were not claimed exactly once");
    let violations = torture::once::links(&tenantry, 16, 3).await.unwrap();
    assert_eq!(violations, 0, "links that were not followed exactly once");
    tenantry.close().await;
}
