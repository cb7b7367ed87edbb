//! How soon a suspension takes effect.
//!
//! `cargo bench --bench suspend [-- --encryption off|tls]` measures without TLS and with TLS. The first part measures another node: the time until its running query ends, and
//! until its next query is refused; and the same on a standby, if one can be started. The second part measures the time
//! until the tenant is *closed*: the step `server.refuse` has read back that no role can log in, and has terminated
//! every session. It repeats that with a hostile neighbour, and with a suspended tenant that is hostile itself.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results and panics on errors")]
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tenantry::directory::TenantDatabase;
use tenantry::registry::TenantRegistry;
use tenantry::testing::{Harness, TestServer};
use tenantry::{TenantPool, Tenantry, sqlx};

mod encryption;
#[path = "suspend/hostile.rs"]
mod hostile;
mod ratio;
use encryption::Encryption;

const ROUNDS: usize = 100;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut all = vec![];
    for encryption in Encryption::from_arguments() {
        let measured = measure(encryption).await;
        all.extend(measured.into_iter().map(|(name, times)| (encryption.label(name), times)));
    }
    report(all);
}

async fn measure(encryption: Encryption) -> Vec<(&'static str, Vec<Duration>)> {
    let builder = encryption.server().durable(true).setting("max_prepared_transactions", "20");
    let server = builder.start().await.unwrap();
    println!("{}", encryption.label(&server.describe()));
    let server: &'static TestServer = Box::leak(Box::new(server));
    let harness = Harness::on(server).await.unwrap();
    let nodes = [harness.tenantry(|b| b).await.unwrap(), harness.tenantry(|b| b).await.unwrap()];
    nodes[0].provision("acme").await.unwrap();
    let [ended, refused] = measure_effect(&nodes, server, false).await;
    let mut all = vec![("suspend: a running query has ended", ended), ("suspend: the next query is refused", refused)];
    let neighbour = nodes[0].provision("neighbour").await.unwrap().tenant;
    let (acme, neighbour) =
        (login_options(&nodes[0], "acme").await, login_options(&nodes[0], neighbour.slug().as_str()).await);
    all.push(("suspend: closed", measure_closed(&nodes[0], None).await));
    let hostile = tokio::spawn(hostile::disturb_others(neighbour));
    all.push(("suspend: closed, a neighbour is hostile", measure_closed(&nodes[0], None).await));
    all.push(("suspend: closed, both tenants are hostile", measure_closed(&nodes[0], Some(&acme)).await));
    hostile.abort();
    match server.standby().await {
        Ok(standby) => {
            add_replica(&nodes[0], &standby).await;
            let [ended, refused] = measure_effect(&nodes, &standby, true).await;
            all.push(("suspend: a query on a standby has ended", ended));
            all.push(("suspend: the next standby read is refused", refused));
        }
        Err(error) => println!("!!! SKIPPED: the part with a standby: {error} !!!"),
    }
    for node in nodes {
        node.close().await;
    }
    all
}

/// The second node runs a query on `server` while the first node suspends the tenant. Measures the time until the query
/// ends, and until the second node's next query is refused.
async fn measure_effect([here, there]: &[Tenantry; 2], server: &TestServer, reads: bool) -> [Vec<Duration>; 2] {
    let mut watch = server.admin_options().connect().await.unwrap();
    let mut times = [vec![], vec![]];
    for round in 0..ROUNDS + 3 {
        let db = resolve(there, &mut watch, reads).await;
        let running = tokio::spawn(run_long_query(db.clone()));
        wait_until_running(&mut watch).await;
        let begun = Instant::now();
        let suspending = tokio::spawn(here.suspend("acme").into_future());
        let at = running.await.unwrap();
        while sqlx::query("SELECT 1").execute(&db).await.is_ok() {}
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

/// Measures the time from the call until the step `server.refuse` is done. With `hostile`, the tenant first locks its
/// own role with this login.
async fn measure_closed(node: &Tenantry, hostile: Option<&PgConnectOptions>) -> Vec<Duration> {
    let mut times = vec![];
    for round in 0..ROUNDS + 3 {
        let sessions = match hostile {
            Some(login) => hostile::lock_own_role(login).await,
            None => vec![],
        };
        let (begun, closed) = (Instant::now(), Arc::new(OnceLock::new()));
        let closed_by_event = closed.clone();
        let suspended = node.suspend("acme").on_event(move |event| {
            if event.step == "server.refuse" {
                closed_by_event.get_or_init(Instant::now);
            }
        });
        assert!(suspended.await.unwrap().is_complete(), "the suspension did not complete");
        drop(sessions);
        node.activate("acme").await.unwrap();
        if round >= 3 {
            times.push(*closed.get().unwrap() - begun);
        }
    }
    times
}

/// Options to connect as the tenant's own login, as a tenant that has learnt its password.
async fn login_options(tenantry: &Tenantry, slug: &str) -> PgConnectOptions {
    use secrecy::ExposeSecret;
    let tenant = tenantry.registry().find(slug.into()).await.unwrap().unwrap();
    let entry = tenantry.registry().primary(tenant.id()).await.unwrap().unwrap();
    let password = tenantry.vault().open(&entry.credential).await.unwrap();
    let (login, database) = (entry.login.as_str(), entry.database.as_str());
    tenantry::testing::connect_options(&entry.host, entry.port, login, password.expose_secret(), database)
}

/// Resolves the tenant. With `reads`, waits until its reads use the standby: after a suspension they use the primary
/// until the standby accepts the login again.
async fn resolve(node: &Tenantry, watch: &mut PgConnection, reads: bool) -> TenantPool {
    const HAS_SESSION: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename LIKE '%v1')";
    let db = node.resolve("acme").await.unwrap();
    let db = if reads { db.read() } else { return db };
    while !sqlx::query_scalar::<_, bool>(HAS_SESSION).fetch_one(&mut *watch).await.unwrap() {
        sqlx::query("SELECT 1").execute(&db).await.unwrap();
    }
    db
}

/// Adds the standby to the tenant's entries as a replica.
async fn add_replica(tenantry: &Tenantry, standby: &TestServer) {
    let tenant = tenantry.resolve("acme").await.unwrap().tenant().id();
    let primary = tenantry.registry().primary(tenant).await.unwrap().unwrap();
    let there = standby.admin_options();
    let replica = TenantDatabase::replica_of(&primary, there.get_host(), there.get_port());
    tenantry.registry_writer().put_database(None, &replica, None).await.unwrap();
}

/// Prints the times, and writes the ratios of the maxima to one second.
fn report(all: Vec<(String, Vec<Duration>)>) {
    println!("{:44} {:>9} {:>9} {:>9}", "", "p50", "p99", "max");
    let mut rows = vec![];
    for (name, mut times) in all {
        times.sort_unstable();
        let (p50, p99, max) = (times[times.len() / 2], times[times.len() * 99 / 100 - 1], times[times.len() - 1]);
        let ms = |time: Duration| format!("{:>6.1} ms", time.as_secs_f64() * 1e3);
        println!("{name:44} {} {} {}", ms(p50), ms(p99), ms(max));
        rows.push(ratio::Ratio::against(name, max, Duration::from_secs(1), 1.0));
    }
    println!("The maximum of {ROUNDS} rounds, compared with one second:");
    ratio::report("suspend", &rows).unwrap();
}

/// Runs a query until the suspension terminates it. Returns that moment.
async fn run_long_query(pool: TenantPool) -> Instant {
    let answer = sqlx::query("SELECT pg_sleep(600)").execute(&pool).await;
    assert!(answer.is_err(), "the query ended although nothing should have terminated it");
    Instant::now()
}

async fn wait_until_running(watch: &mut PgConnection) {
    const RUNS: &str =
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600)%' AND state = 'active')";
    while !sqlx::query_scalar::<_, bool>(RUNS).fetch_one(&mut *watch).await.unwrap() {}
}
