//! Rotations of a tenant's login: their duration, and whether queries fail while they run.
//!
//! `cargo bench --bench rotate [-- --rotations N] [--encryption off|tls]`. The first part compares the duration with
//! that of the bare statements, without TLS and with TLS. In the second part, three other processes query all tenants during N rotations (default: 1000). In the
//! third part, one of these processes is stopped during 100 rotations. With N = 0, only the first part runs.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results and panics on errors")]
use rotate::{LoadProcess, load};
use sqlx::{ConnectOptions, Executor};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tenantry::operation::OperationEvent;
use tenantry::testing::{Harness, TestServer};
use tenantry::vault::LocalKeyring;
use tenantry::{Tenantry, sqlx};
use time::OffsetDateTime;

mod bare;
mod encryption;
mod ratio;
#[path = "rotate/load.rs"]
mod rotate;
use encryption::Encryption;
use ratio::{Goal, Ratio, Row};

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("benches/migrations");
const TENANTS: usize = 10;
const KEYS: &str = "k1:oRqXTi4jD3PHGrDq0bR3rV4nXB6Vd1pD9yVYCyG0l3Q=";

fn main() {
    if let Some(task) = load::Task::from_env() {
        return load::run(&task);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let arguments: Vec<String> = std::env::args().collect();
    let given = arguments.iter().position(|w| w == "--rotations").and_then(|at| arguments.get(at + 1)?.parse().ok());
    let rotations: usize = given.unwrap_or(1000);
    let mut rows = vec![];
    for encryption in Encryption::from_arguments() {
        let server = encryption.server().durable(true).start().await.unwrap();
        println!("{}", encryption.label(&server.describe()));
        let harness = Harness::on(Box::leak(Box::new(server))).await.unwrap();
        rows.push(Row::from(&measure_single(&harness, encryption).await));
    }
    if rotations == 0 {
        return ratio::report_rows("rotate", &rows).unwrap();
    }

    let server = TestServer::builder().start().await.unwrap();
    let harness = Harness::on(Box::leak(Box::new(server))).await.unwrap();
    let (tenantry, task) = prepare(&harness).await;
    rows.push(measure_under_load(&tenantry, &task, rotations).await);
    rows.push(measure_with_stopped_process(&tenantry, &task).await);
    ratio::report_rows("rotate", &rows).unwrap();
    tenantry.close().await;
}

/// The time from the call until the old login is dropped, compared with the bare statements. Both moments are taken by
/// the landlord's clock, the drop when the landlord records it. Also prints the time until the operation's end is
/// reported, which is later.
async fn measure_single(harness: &Harness, encryption: Encryption) -> Ratio {
    let tenantry = harness.tenantry(|b| b.tenant_migrations(&MIGRATIONS)).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let bare = bare::Bare::new(harness, &tenantry, &MIGRATIONS).await;
    bare.provision("bare").await;
    let mut ratio = Ratio::new(encryption.label("rotate a tenant, no session, no grace"), 1.4);
    let mut reported = Ratio::new("", 0.0);
    for n in 1..=303 {
        let began = read_time(harness, "SELECT clock_timestamp()").await;
        let (clock, ended) = (Instant::now(), Arc::new(OnceLock::new()));
        let ended_by_event = ended.clone();
        let observe = move |event: &OperationEvent| {
            if event.status.is_over() {
                let _ = ended_by_event.set(clock.elapsed());
            }
        };
        tenantry.rotate("acme").grace(Duration::ZERO).on_event(observe).await.unwrap();
        let dropped = read_time(harness, "SELECT max(dropped_at) FROM tenantry.tenant_database_users").await - began;
        let reference = bare.rotate("bare", n).await;
        if n > 3 {
            ratio.add_pair(dropped.unsigned_abs(), reference);
            reported.add_pair(*ended.get().unwrap(), reference);
        }
    }
    let (row, reported) = (Row::from(&ratio), Row::from(&reported));
    println!(
        "{} rotations: {:.1} ms until the drop, {:.1} ms until the end is reported",
        row.pairs, row.ours, reported.ours
    );
    tenantry.close().await;
    ratio
}

/// Reads a time from the landlord.
async fn read_time(harness: &Harness, sql: &'static str) -> OffsetDateTime {
    sqlx::query_scalar(sql).fetch_one(harness.landlord()).await.unwrap()
}

/// Provisions the tenants, and returns what another process needs to query them.
async fn prepare(harness: &Harness) -> (Tenantry, load::Task) {
    let mut admin = harness.server().admin_options().connect().await.unwrap();
    admin.execute("CREATE ROLE bench_load SUPERUSER LOGIN PASSWORD 'of the benchmark alone'").await.unwrap();
    let options = harness.landlord().connect_options();
    let task = load::Task {
        host: options.get_host().into(),
        port: options.get_port(),
        database: options.get_database().unwrap().into(),
        tenants: TENANTS,
        keys: KEYS.into(),
    };
    let keys = LocalKeyring::from_text(KEYS).unwrap();
    let tenantry = Tenantry::builder(harness.landlord().clone()).keys(keys).build().await.unwrap();
    let admin = harness.server().admin_options();
    tenantry.servers().set_up("main", admin).prefix(harness.prefix()).await.unwrap();
    for n in 0..TENANTS {
        let slug = load::slug(n);
        tenantry.provision(&slug).await.unwrap();
        let entry = tenantry.resolve(&*slug).await.unwrap();
        sqlx::query("SELECT 1").execute(&entry).await.unwrap();
    }
    (tenantry, task)
}

/// Rotates while three processes query all tenants. No query may fail.
async fn measure_under_load(tenantry: &Tenantry, task: &load::Task, rotations: usize) -> Row {
    let mut loads = [LoadProcess::start(task), LoadProcess::start(task), LoadProcess::start(task)];
    let clock = Instant::now();
    for n in 0..rotations {
        let rotated = tenantry.rotate(&*load::slug(n % TENANTS)).await.unwrap();
        assert_eq!(rotated.retiring, None, "a rotation left its old login behind");
    }
    let took = clock.elapsed();
    let results: Vec<_> = loads.iter_mut().map(LoadProcess::end).collect();
    let asked: u64 = results.iter().map(|s| s.asked).sum();
    println!(
        "{rotations} rotations in {took:.0?}, {:.1} ms each, while three processes ran {asked} queries",
        took.as_secs_f64() * 1e3 / rotations as f64
    );
    let failed: u64 = results.iter().map(|s| s.lost + s.failed).sum();
    results.iter().flat_map(|s| &s.errors).take(5).for_each(|e| println!("  {e}"));
    failures_row("failed queries while logins change", failed, rotations)
}

/// Rotates while one of three processes is stopped for longer than the grace period, so its sessions are terminated. It
/// may lose statements that were in flight; every other query must succeed.
async fn measure_with_stopped_process(tenantry: &Tenantry, task: &load::Task) -> Row {
    let mut loads = [LoadProcess::start(task), LoadProcess::start(task), LoadProcess::start(task)];
    let clock = Instant::now();
    for _ in 0..10 {
        loads[2].signal("STOP");
        for n in 0..TENANTS {
            tenantry.rotate(&*load::slug(n)).grace(Duration::from_millis(50)).await.unwrap();
        }
        loads[2].signal("CONT");
        loads[2].wait_until_active();
    }
    let took = clock.elapsed();
    let results: Vec<_> = loads.iter_mut().map(LoadProcess::end).collect();
    let (lost, asked) = (results[2].lost, results[2].asked);
    println!(
        "100 rotations in {took:.0?}; the process that was stopped ten times ran {asked} queries, {lost} lost in flight"
    );
    let failed: u64 = results[0].lost + results[1].lost + results.iter().map(|s| s.failed).sum::<u64>();
    results.iter().flat_map(|s| &s.errors).take(5).for_each(|e| println!("  {e}"));
    failures_row("failed queries after a process has woken", failed, 100)
}

/// A row for a number of failed queries, which must be zero.
fn failures_row(name: &'static str, failed: u64, pairs: usize) -> Row {
    Row {
        name: name.into(),
        ours: failed as f64,
        reference: 1.0,
        unit: "q ",
        ratio: failed as f64,
        goal: Goal::AtMost(0.0),
        pairs,
    }
}
