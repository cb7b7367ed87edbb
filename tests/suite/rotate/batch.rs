//! `rotate_all` while a node is silent: it keeps sessions of every old login open and follows no change.
use super::{logins, quick};
use crate::auditor;
use sqlx::{ConnectOptions, Connection};
use std::time::{Duration, Instant};
use tenantry::testing::Harness;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotate_all_waits_for_a_silent_node_once_and_not_for_each_tenant() {
    const TENANTS: usize = 12;
    const CONCURRENCY: usize = 2;
    const GRACE: Duration = Duration::from_secs(5);
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let mut silent = vec![];
    for n in 0..TENANTS {
        let slug = format!("tenant-{n}");
        tenantry.provision(&slug).await.unwrap();
        silent.push(auditor::login(&tenantry, &slug).await.connect().await.unwrap());
    }

    let begun = Instant::now();
    let report = tenantry.rotate_all().grace(GRACE).concurrency(CONCURRENCY).await.unwrap();
    let took = begun.elapsed();
    println!("rotate_all of {TENANTS} tenants with a silent node and a grace period of {GRACE:?} took {took:?}");
    assert_eq!((report.done.len(), report.failed.len()), (TENANTS, 0), "{report:?}");
    let per_tenant = GRACE * (TENANTS / CONCURRENCY) as u32;
    assert!(took < per_tenant, "{took:?}: the grace period was paid for each tenant");
    for (tenant, rotated) in &report.done {
        assert_eq!(rotated.retiring, None, "{}: the old login was not dropped", tenant.slug());
        let database = auditor::login(&tenantry, tenant.slug().as_str()).await.get_database().unwrap().to_owned();
        assert_eq!(logins(&harness, &database).await.len(), 1, "{}", tenant.slug());
    }
    for session in &mut silent {
        assert!(session.ping().await.is_err(), "a session of a dropped login is still open");
    }
}

/// The grace period is a promise to each session of an old login.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotate_all_lets_a_session_of_an_old_login_work_until_the_grace_period_is_over() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    for slug in ["acme", "idle"] {
        tenantry.provision(slug).await.unwrap();
    }
    let mut working = auditor::login(&tenantry, "acme").await.connect().await.unwrap();
    let batch = tokio::spawn(tenantry.rotate_all().grace(Duration::from_secs(6)).into_future());
    while tenantry.retiring(10).await.unwrap().iter().all(|r| r.attempts == 0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    working.ping().await.expect("the session ended within the grace period");
    assert!(!batch.is_finished());
    drop(working);
    let report = batch.await.unwrap().unwrap();
    assert!(report.done.iter().all(|(_, rotated)| rotated.retiring.is_none()), "{report:?}");
}
