//! How long a suspension takes to hold on another node: until its running query ends, and until its next is refused.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark talks, and may panic")]
use sqlx::{ConnectOptions, PgConnection};
use std::time::{Duration, Instant};
use tenantry::testing::{Harness, TestServer};
use tenantry::{TenantPool, sqlx};

mod ratio;

const ROUNDS: usize = 100;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let server = TestServer::builder().durable(true).start().await.unwrap();
    println!("{}", server.describe());
    let harness = Harness::on(Box::leak(Box::new(server))).await.unwrap();
    let (here, there) = (harness.tenantry(|b| b).await.unwrap(), harness.tenantry(|b| b).await.unwrap());
    here.provision("acme").await.unwrap();
    let mut watch = harness.server().admin_options().connect().await.unwrap();
    let (mut ended, mut refused) = (vec![], vec![]);
    for round in 0..ROUNDS + 3 {
        let elsewhere = there.resolve("acme").await.unwrap();
        let running = tokio::spawn(run_long(elsewhere.clone()));
        is_running(&mut watch).await;
        let begun = Instant::now();
        let suspending = tokio::spawn(here.suspend("acme").into_future());
        let at = running.await.unwrap();
        while sqlx::query("SELECT 1").execute(&elsewhere).await.is_ok() {}
        let next = begun.elapsed();
        suspending.await.unwrap().unwrap();
        here.activate("acme").await.unwrap();
        if round >= 3 {
            ended.push(at - begun);
            refused.push(next);
        }
    }
    println!("{:44} {:>9} {:>9}", "", "p50", "max");
    let mut rows = vec![];
    for (name, mut times) in
        [("suspend: a running query has ended", ended), ("suspend: the next query is refused", refused)]
    {
        times.sort_unstable();
        let (p50, max) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{name:44} {:>6.1} ms {:>6.1} ms", p50.as_secs_f64() * 1e3, max.as_secs_f64() * 1e3);
        rows.push(ratio::Ratio::against(name, max, Duration::from_secs(1), 1.0));
    }
    println!("The longest of {ROUNDS}, against one second:");
    ratio::report("suspend", &rows).unwrap();
    here.close().await;
    there.close().await;
}

/// Runs until somebody ends it, and says when that was.
async fn run_long(pool: TenantPool) -> Instant {
    assert!(sqlx::query("SELECT pg_sleep(600)").execute(&pool).await.is_err());
    Instant::now()
}

async fn is_running(watch: &mut PgConnection) {
    const RUNS: &str =
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600)%' AND state = 'active')";
    while !sqlx::query_scalar::<_, bool>(RUNS).fetch_one(&mut *watch).await.unwrap() {}
}
