//! How long a suspension takes to hold on another node: until its running query ends, and until its next is refused. And
//! until it is *closed* (read back: no role can enter, every session was told to end), alone, with a hostile tenant next
//! door, and when the suspended tenant itself is hostile.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results and panics on errors")]
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tenantry::directory::TenantDatabase;
use tenantry::registry::TenantRegistryExt;
use tenantry::testing::{Harness, TestServer};
use tenantry::{TenantPool, Tenantry, sqlx};

#[path = "suspend/hostile.rs"]
mod hostile;
mod ratio;

const ROUNDS: usize = 100;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let builder = TestServer::builder().durable(true).setting("max_prepared_transactions", "20");
    let server = builder.start().await.unwrap();
    println!("{}", server.describe());
    let server: &'static TestServer = Box::leak(Box::new(server));
    let harness = Harness::on(server).await.unwrap();
    let nodes = [harness.tenantry(|b| b).await.unwrap(), harness.tenantry(|b| b).await.unwrap()];
    nodes[0].provision("acme").await.unwrap();
    let [ended, refused] = times(&nodes, server, false).await;
    let mut all = vec![("suspend: a running query has ended", ended), ("suspend: the next query is refused", refused)];
    let neighbour = nodes[0].provision("neighbour").await.unwrap().tenant;
    let (acme, neighbour) = (login(&nodes[0], "acme").await, login(&nodes[0], neighbour.slug().as_str()).await);
    all.push(("suspend: closed", closed(&nodes[0], None).await));
    let hostile = tokio::spawn(hostile::neighbour(neighbour));
    all.push(("closed, a hostile tenant next door", closed(&nodes[0], None).await));
    all.push(("closed, that and the tenant itself is hostile", closed(&nodes[0], Some(&acme)).await));
    hostile.abort();
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

/// From the call until its read-back has ended, each time with the tenant as `hostile` makes it.
async fn closed(node: &Tenantry, hostile: Option<&PgConnectOptions>) -> Vec<Duration> {
    let mut times = vec![];
    for round in 0..ROUNDS + 3 {
        let sessions = match hostile {
            Some(login) => hostile::sessions(login).await,
            None => vec![],
        };
        let (begun, closed) = (Instant::now(), Arc::new(OnceLock::new()));
        let seen = closed.clone();
        let suspended = node.suspend("acme").on_event(move |event| {
            if event.step == "server.refuse" {
                seen.get_or_init(Instant::now);
            }
        });
        assert!(suspended.await.unwrap().is_complete());
        drop(sessions);
        node.activate("acme").await.unwrap();
        if round >= 3 {
            times.push(*closed.get().unwrap() - begun);
        }
    }
    times
}

async fn login(tenantry: &Tenantry, slug: &str) -> PgConnectOptions {
    use secrecy::ExposeSecret;
    let tenant = tenantry.registry().find(slug.into()).await.unwrap().unwrap();
    let entry = tenantry.registry().primary(tenant.id()).await.unwrap().unwrap();
    let password = tenantry.vault().open(&entry.credential).await.unwrap();
    let options = PgConnectOptions::new_without_pgpass().host(&entry.host).port(entry.port);
    options.database(entry.database.as_str()).username(entry.login.as_str()).password(password.expose_secret())
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
    println!("{:44} {:>9} {:>9} {:>9}", "", "p50", "p99", "max");
    let mut rows = vec![];
    for (name, mut times) in all {
        times.sort_unstable();
        let (p50, p99, max) = (times[times.len() / 2], times[times.len() * 99 / 100 - 1], times[times.len() - 1]);
        let ms = |time: Duration| format!("{:>6.1} ms", time.as_secs_f64() * 1e3);
        println!("{name:44} {} {} {}", ms(p50), ms(p99), ms(max));
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
