//! How long a suspension takes to hold on another node: until its running query ends, and until its next is refused.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark talks, and may panic")]
use sqlx::{ConnectOptions, PgConnection};
use std::time::{Duration, Instant};
use tenantry::database::TenantDatabase;
use tenantry::registry::TenantRegistryExt;
use tenantry::testing::{Harness, TestServer};
use tenantry::{TenantPool, Tenantry, sqlx};

mod ratio;

const ROUNDS: usize = 100;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let server = TestServer::builder().durable(true).start().await.unwrap();
    println!("{}", server.describe());
    let server: &'static TestServer = Box::leak(Box::new(server));
    let harness = Harness::on(server).await.unwrap();
    let nodes = [harness.tenantry(|b| b).await.unwrap(), harness.tenantry(|b| b).await.unwrap()];
    nodes[0].provision("acme").await.unwrap();
    let [ended, refused] = times(&nodes, server, false).await;
    let mut all = vec![("suspend: a running query has ended", ended), ("suspend: the next query is refused", refused)];
    match server.standby().await {
        Ok(standby) => {
            replicate(&nodes[0], &standby).await;
            let [ended, refused] = times(&nodes, &standby, true).await;
            all.push(("the same for a query on a standby", ended));
            all.push(("the same for the next read", refused));
        }
        Err(error) => println!("no standby: {error}"),
    }
    report(all);
    for node in nodes {
        node.close().await;
    }
}

/// Of a query that runs on `server` for the second node while the first one suspends; and of the next one after it.
async fn times([here, there]: &[Tenantry; 2], server: &TestServer, reads: bool) -> [Vec<Duration>; 2] {
    let mut watch = server.admin_options().connect().await.unwrap();
    let mut times = [vec![], vec![]];
    for round in 0..ROUNDS + 3 {
        let elsewhere = resolved(there, &mut watch, reads).await;
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
            times[0].push(at - begun);
            times[1].push(next);
        }
    }
    times
}

/// Of the standby only when that lets the tenant in again: until then the primary answers.
async fn resolved(node: &Tenantry, watch: &mut PgConnection, reads: bool) -> TenantPool {
    const IN: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename LIKE '%v1')";
    let db = node.resolve("acme").await.unwrap();
    let db = if reads { db.read() } else { return db };
    while !sqlx::query_scalar::<_, bool>(IN).fetch_one(&mut *watch).await.unwrap() {
        sqlx::query("SELECT 1").execute(&db).await.unwrap();
    }
    db
}

async fn replicate(tenantry: &Tenantry, standby: &TestServer) {
    let tenant = tenantry.resolve("acme").await.unwrap().tenant().id();
    let primary = tenantry.registry().primary(tenant).await.unwrap().unwrap();
    let there = standby.admin_options();
    let replica = TenantDatabase::replica_of(&primary, there.get_host(), there.get_port());
    tenantry.registry_writer().put_database(None, &replica, None).await.unwrap();
}

fn report(all: Vec<(&'static str, Vec<Duration>)>) {
    println!("{:44} {:>9} {:>9}", "", "p50", "max");
    let mut rows = vec![];
    for (name, mut times) in all {
        times.sort_unstable();
        let (p50, max) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{name:44} {:>6.1} ms {:>6.1} ms", p50.as_secs_f64() * 1e3, max.as_secs_f64() * 1e3);
        rows.push(ratio::Ratio::against(name, max, Duration::from_secs(1), 1.0));
    }
    println!("The longest of {ROUNDS}, against one second:");
    ratio::report("suspend", &rows).unwrap();
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
