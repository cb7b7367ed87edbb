//! A rotation against its bare statements; and a thousand of them while three other processes ask all the time, then a
//! hundred while one of these is stopped: `cargo bench --bench rotate [-- --rotations N]`, with 0 for
//! the first part alone.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results and panics on errors")]
use rotate::{Load, load};
use sqlx::{ConnectOptions, Executor};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tenantry::operation::OperationEvent;
use tenantry::testing::{Harness, TestServer};
use tenantry::vault::LocalKeyring;
use tenantry::{Tenantry, sqlx};
use time::OffsetDateTime;

mod bare;
mod ratio;
#[path = "rotate/load.rs"]
mod rotate;
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
    let words: Vec<String> = std::env::args().collect();
    let given = words.iter().position(|w| w == "--rotations").and_then(|at| words.get(at + 1)?.parse().ok());
    let rotations: usize = given.unwrap_or(1000);
    let server = TestServer::builder().durable(true).start().await.unwrap();
    println!("{}", server.describe());
    let harness = Harness::on(Box::leak(Box::new(server))).await.unwrap();
    let single = against_bare(&harness).await;
    if rotations == 0 {
        return ratio::report_rows("rotate", &[Row::from(&single)]).unwrap();
    }

    let server = TestServer::builder().start().await.unwrap();
    let harness = Harness::on(Box::leak(Box::new(server))).await.unwrap();
    let (tenantry, task) = prepare(&harness).await;
    let mut rows = vec![Row::from(&single)];
    rows.push(under_load(&tenantry, &task, rotations).await);
    rows.push(while_stopped(&tenantry, &task).await);
    ratio::report_rows("rotate", &rows).unwrap();
    tenantry.close().await;
}

/// From the call to the drop of the old login: both by the landlord's clock, the drop when it is written down. And until
/// the operation's end is told, which comes after it.
async fn against_bare(harness: &Harness) -> Ratio {
    let tenantry = harness.tenantry(|b| b.tenant_migrations(&MIGRATIONS)).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let bare = bare::Bare::new(harness, &tenantry, &MIGRATIONS).await;
    bare.provision("bare").await;
    let mut ratio = Ratio::new("rotate a tenant, no session, no grace", 1.3);
    let mut told = Ratio::new("", 0.0);
    for n in 1..=303 {
        let began = at(harness, "SELECT clock_timestamp()").await;
        let (clock, gone) = (Instant::now(), Arc::new(OnceLock::new()));
        let seen = gone.clone();
        let see = move |event: &OperationEvent| {
            if event.status.is_over() {
                let _ = seen.set(clock.elapsed());
            }
        };
        tenantry.rotate("acme").grace(Duration::ZERO).on_event(see).await.unwrap();
        let dropped = at(harness, "SELECT max(dropped_at) FROM tenantry.tenant_database_users").await - began;
        let reference = bare.rotate("bare", n).await;
        if n > 3 {
            ratio.pair(dropped.unsigned_abs(), reference);
            told.pair(*gone.get().unwrap(), reference);
        }
    }
    let (row, told) = (Row::from(&ratio), Row::from(&told));
    println!("{} rotations: {:.1} ms to the drop, {:.1} ms until the end is told", row.pairs, row.ours, told.ours);
    tenantry.close().await;
    ratio
}

/// By the landlord's clock.
async fn at(harness: &Harness, question: &'static str) -> OffsetDateTime {
    sqlx::query_scalar(question).fetch_one(harness.landlord()).await.unwrap()
}

/// Tenants, each with its own name in its data, and what another process needs to find them.
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

async fn under_load(tenantry: &Tenantry, task: &load::Task, rotations: usize) -> Row {
    let mut loads = [Load::start(task), Load::start(task), Load::start(task)];
    let clock = Instant::now();
    for n in 0..rotations {
        let rotated = tenantry.rotate(&*load::slug(n % TENANTS)).await.unwrap();
        assert_eq!(rotated.retiring, None);
    }
    let took = clock.elapsed();
    let said: Vec<_> = loads.iter_mut().map(Load::end).collect();
    let asked: u64 = said.iter().map(|s| s.asked).sum();
    println!(
        "{rotations} rotations in {took:.0?}, {:.1} ms each, while three processes asked {asked} times",
        took.as_secs_f64() * 1e3 / rotations as f64
    );
    let failed: u64 = said.iter().map(|s| s.lost + s.failed).sum();
    said.iter().flat_map(|s| &s.errors).take(5).for_each(|e| println!("  {e}"));
    none("failed queries while logins change", failed, rotations)
}

/// The grace is shorter than the stop: whatever the stopped process has open is ended.
async fn while_stopped(tenantry: &Tenantry, task: &load::Task) -> Row {
    let mut loads = [Load::start(task), Load::start(task), Load::start(task)];
    let clock = Instant::now();
    for _ in 0..10 {
        loads[2].signal("STOP");
        for n in 0..TENANTS {
            tenantry.rotate(&*load::slug(n)).grace(Duration::from_millis(50)).await.unwrap();
        }
        loads[2].signal("CONT");
        loads[2].goes_on();
    }
    let took = clock.elapsed();
    let said: Vec<_> = loads.iter_mut().map(Load::end).collect();
    let (lost, asked) = (said[2].lost, said[2].asked);
    println!(
        "100 rotations in {took:.0?}; the process that was stopped ten times asked {asked} times, and lost {lost} statements that were in flight"
    );
    let failed: u64 = said[0].lost + said[1].lost + said.iter().map(|s| s.failed).sum::<u64>();
    said.iter().flat_map(|s| &s.errors).take(5).for_each(|e| println!("  {e}"));
    none("failed queries after a process has woken", failed, 100)
}

fn none(name: &'static str, failed: u64, pairs: usize) -> Row {
    Row { name, ours: failed as f64, reference: 1.0, unit: "q ", ratio: failed as f64, goal: Goal::AtMost(0.0), pairs }
}
