//! A sample of `examples/torture`: a few points of each saga, each with another fault.
use tenantry::testing::server::NoServer;
use tenantry::testing::{Harness, TestServer};
use tenantry::tokens::PgTokenStore;

#[path = "../../examples/torture/torture/mod.rs"]
mod torture;

/// No test: the process that the sample starts and kills is this binary again.
#[test]
fn child() {
    if let Some(task) = torture::Task::from_env().unwrap() {
        torture::run_child(task).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_of_the_torture_leaves_no_half_tenant() {
    if let Err(NoServer::Local(error)) = TestServer::builder().local_only().start().await {
        println!("!!! SKIPPED: the torture crashes servers, and so needs local binaries: {error} !!!");
        return;
    }
    let sagas =
        ["provision", "undo-recovery", "archive", "purge", "migrate", "rotate", "credentials-link", "password-link"]
            .map(|saga| ["--saga", saga]);
    let words = ["--runs", "18", "--seed", "20261124", "--lanes", "2"].into_iter().chain(sagas.into_iter().flatten());
    let options = torture::Options::parse(words.map(String::from)).unwrap();
    let child = || {
        let mut child = tokio::process::Command::new(std::env::current_exe()?);
        child.args(["--exact", "torture_sample::child", "--nocapture", "--test-threads=1"]);
        Ok(child)
    };
    let report = torture::torture(&options, child, |line| println!("{line}")).await.unwrap();
    let violations: Vec<_> = report.violations().collect();
    assert!(report.is_clean(), "{}\n{violations:#?}", report.table());
    assert_eq!(report.runs(), 18);
    assert!(report.missed() <= 2, "the points are where they were recorded: {}", report.table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_clients_one_has_each_token_and_each_link_is_followed_once() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| b).await.unwrap();
    let acme = tenantry.provision("acme").await.unwrap().tenant.id();
    let store = PgTokenStore::new(torture::once::wide(&harness).await.unwrap());
    assert_eq!(torture::once::tokens(&store, acme, 32, 100).await.unwrap(), 0);
    assert_eq!(torture::once::links(&tenantry, 16, 3).await.unwrap(), 0);
    tenantry.close().await;
}
