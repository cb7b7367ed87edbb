//! The pool that all tenants share, compared with theoretical limits, with a pool for each tenant, and with PgBouncer.
//!
//! `cargo bench --bench pool` measures without TLS and with TLS; `-- --encryption tls` only the latter. `-- --only zipf`
//! runs one part; the parts are `hit`, `checkout`, `discard`, `idle`, `cold`, `hot`, `noisy` and `zipf`.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results and panics on errors")]
use encryption::Encryption;
use pool::bouncer::Bouncer;
use pool::hosts::{Hosts, options, slug};
use pool::load::{Zipf, run};
use pool::peers::{
    BUDGET, COUNTED, TASKS, WARM, bouncer_pools, create_pools, create_resolver, print_load, query, query_by_name,
    resident_bytes, run_dedicated, run_pools, run_tenantry, run_tenantry_with_misses,
};
use ratio::{Goal, Row};
use sqlx::postgres::PgPool;
use sqlx::{ConnectOptions, Connection};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tenantry::resolver::PooledResolver;
use tenantry::testing::TestServer;
use tenantry::{ConnectionResolver, TenantPool, TenantRef, sqlx};

mod encryption;
#[path = "pool/parts.rs"]
mod pool;
mod ratio;

const TENANTS: usize = 300;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let only = std::env::args().skip_while(|a| a != "--only").nth(1);
    let mut rows = vec![];
    for encryption in Encryption::from_arguments() {
        rows.extend(measure(only.as_deref(), encryption).await);
    }
    ratio::report_rows("pool", &rows).unwrap();
}

/// The wanted parts against one server. The parts that send nothing to it are measured without TLS only.
async fn measure(only: Option<&str>, encryption: Encryption) -> Vec<Row> {
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    let server = encryption.server().setting("max_connections", "100").start().await.unwrap();
    let server: &'static TestServer = Box::leak(Box::new(server));
    println!("{}", encryption.label(&server.describe()));
    let databases = match only {
        Some("hit" | "idle") => 0,
        Some("checkout") => 1,
        Some("discard" | "hot" | "noisy") => 15,
        _ => TENANTS,
    };
    Hosts::new(server, databases).await;
    let hosts = Hosts::named(server, TENANTS);
    let mut rows = match encryption {
        Encryption::Off => measure_local(&wanted, server, &hosts).await,
        Encryption::Tls => vec![],
    };
    if wanted("cold") {
        rows.extend(measure_cold(server, &hosts).await);
    }
    if wanted("hot") {
        rows.extend(measure_hot(server, &hosts).await);
    }
    if wanted("noisy") {
        rows.push(measure_noisy(server, &hosts).await);
    }
    if wanted("zipf") {
        rows.extend(measure_zipf(server, &hosts).await);
    }
    rows.into_iter().map(|row| Row { name: encryption.label(&row.name), ..row }).collect()
}

/// The parts for which TLS makes no difference.
async fn measure_local(wanted: &impl Fn(&str) -> bool, server: &TestServer, hosts: &Hosts) -> Vec<Row> {
    let mut rows = vec![];
    if wanted("hit") {
        rows.push(measure_hit(hosts).await);
    }
    if wanted("checkout") {
        rows.push(measure_checkout(hosts).await);
    }
    if wanted("discard") {
        rows.push(measure_discard(hosts).await);
    }
    if wanted("idle") {
        rows.push(measure_idle(server).await);
    }
    rows
}

/// A lookup of a cached tenant, compared with a lookup in a `HashMap` and a clone of an `Arc`. In many short
/// measurements, as [`measure_checkout`].
async fn measure_hit(hosts: &Hosts) -> Row {
    const TIMES: u32 = 6_000;
    let resolver = create_resolver(hosts, BUDGET);
    let names: Vec<String> = (0..TENANTS).map(slug).collect();
    let mut plain = HashMap::new();
    for name in &names {
        plain.insert(name.clone(), Arc::new(resolver.resolve(name.as_str().into()).await.unwrap()));
    }
    let mut pairs = vec![];
    for _ in 0..1001 {
        let clock = Instant::now();
        for n in 0..TIMES as usize {
            black_box(resolver.cached(&TenantRef::from(names[n % TENANTS].as_str())));
        }
        let ours = clock.elapsed().as_nanos() as f64 / f64::from(TIMES);
        let clock = Instant::now();
        for n in 0..TIMES as usize {
            black_box(plain.get(names[n % TENANTS].as_str()).cloned());
        }
        pairs.push((ours, clock.elapsed().as_nanos() as f64 / f64::from(TIMES)));
    }
    Row::of("resolve hit / a map and an Arc clone", "ns", Goal::AtMost(2.5), &pairs)
}

/// The time in nanoseconds to take an idle connection from the pool and to return it. The measurements are many and
/// short: a long one would include the time of other processes of the machine.
async fn measure_checkout(hosts: &Hosts) -> Row {
    const TIMES: u32 = 1000;
    let resolver = create_resolver(hosts, BUDGET);
    let db = resolver.resolve(slug(0).as_str().into()).await.unwrap();
    let mut figures = vec![];
    for _ in 0..1001 {
        query(&db).await.unwrap();
        let clock = Instant::now();
        for _ in 0..TIMES {
            db.acquire_and_release().await.unwrap();
        }
        figures.push((clock.elapsed().as_nanos() as f64 / f64::from(TIMES), 1.0));
    }
    let opened: u64 = resolver.stats().iter().map(|(_, stats)| stats.connects).sum();
    assert_eq!(opened, 1, "the pool opened another connection, so some checkouts did not use an idle one");
    resolver.close().await;
    Row::of("checkout and release, no I/O: nanoseconds", "ns", Goal::AtMost(150.0), &figures)
}

/// Queries of 15 tenants, whose connections all fit in the pool, with and without `DISCARD ALL` after each query.
async fn measure_discard(hosts: &Hosts) -> Row {
    let (zipf, mut pairs) = (Zipf::uniform(15), vec![]);
    println!("15 tenants, {TASKS} tasks:");
    for _ in 0..5 {
        let mut rates = vec![];
        for (name, is_enabled) in [("with discard_on_release", true), ("without", false)] {
            let builder = PooledResolver::builder(hosts.clone(), hosts.clone());
            let resolver =
                builder.pool(|p| p.fresh_for(Duration::from_secs(3600)).discard_on_release(is_enabled)).build();
            let at = resolver.clone();
            let load = run(TASKS, &zipf, WARM / 2, COUNTED / 2, move |n| {
                let resolver = at.clone();
                async move { query_by_name(&resolver, n).await }
            })
            .await;
            print_load(name, &load);
            resolver.close().await;
            rates.push(load.rate);
        }
        pairs.push((rates[0], rates[1]));
    }
    Row::of("queries with DISCARD ALL / without", "/s", Goal::AtLeast(0.0), &pairs)
}

/// Resident memory per tenant, of many tenants that are resolved and have no connection.
async fn measure_idle(server: &TestServer) -> Row {
    const COUNT: usize = 10_000;
    let hosts = Hosts::named(server, COUNT);
    let resolver = create_resolver(&hosts, BUDGET);
    resolver.resolve(slug(0).as_str().into()).await.unwrap();
    let before = resident_bytes();
    for n in 1..COUNT {
        resolver.resolve(slug(n).as_str().into()).await.unwrap();
    }
    let bytes = (resident_bytes() - before) / COUNT as f64;
    Row::of("an idle tenant, bytes", "B", Goal::AtMost(2048.0), &[(bytes, 1.0)])
}

/// Latency of a tenant while 256 tasks query another one. The reference is two pools of five connections each.
async fn measure_noisy(server: &TestServer, hosts: &Hosts) -> Row {
    let (one, mut pairs) = (Zipf::uniform(1), vec![]);
    println!("a tenant next to a noisy one:");
    for _ in 0..3 {
        let dedicated = create_pools(server, 2);
        let (noisy, quiet) = (dedicated[0].clone(), dedicated[1].clone());
        let through = |pool: PgPool| {
            move |_| {
                let pool = pool.clone();
                async move { sqlx::query("SELECT 1").fetch_one(&pool).await.map(drop) }
            }
        };
        let noise = tokio::spawn(async move { run(256, &Zipf::uniform(1), WARM, COUNTED, through(noisy)).await });
        let reference = run(4, &one, WARM, COUNTED, through(quiet)).await;
        drop(noise.await);
        print_load("dedicated connections", &reference);
        let resolver = create_resolver(hosts, BUDGET);
        let noisy = resolver.resolve(slug(0).as_str().into()).await.unwrap();
        let quiet = resolver.resolve(slug(1).as_str().into()).await.unwrap();
        let through = |db: TenantPool| {
            move |_| {
                let db = db.clone();
                async move { query(&db).await }
            }
        };
        let noise = tokio::spawn(async move { run(256, &Zipf::uniform(1), WARM, COUNTED, through(noisy)).await });
        let ours = run(4, &one, WARM, COUNTED, through(quiet)).await;
        drop(noise.await);
        print_load("tenantry", &ours);
        resolver.close().await;
        pairs.push((ours.p99.as_secs_f64() * 1e3, reference.p99.as_secs_f64() * 1e3));
    }
    Row::of("p99 next to a noisy tenant / dedicated", "ms", Goal::AtMost(1.25), &pairs)
}

/// The first query of a tenant without a connection: while a slot is free, and while the pool must first close the
/// connection of another tenant.
async fn measure_cold(server: &TestServer, hosts: &Hosts) -> [Row; 2] {
    let (mut free, mut evict) = (vec![], vec![]);
    let wide = create_resolver(hosts, 99);
    let narrow = create_resolver(hosts, 1);
    for n in 0..60 {
        let (raw, other) = (options(server, 100 + n), slug(200 + n));
        let db = wide.resolve(slug(n).as_str().into()).await.unwrap();
        let other = narrow.resolve(other.as_str().into()).await.unwrap();
        // The second connect is slower, because the server is still ending the first session. So the order alternates.
        let (mut reference, mut first) = (0.0, 0.0);
        for is_raw in [n % 2 == 0, n % 2 == 1] {
            let clock = Instant::now();
            if is_raw {
                raw.connect().await.unwrap().close().await.unwrap();
                reference = clock.elapsed().as_secs_f64() * 1e3;
            } else {
                drop(db.acquire().await.unwrap());
                first = clock.elapsed().as_secs_f64() * 1e3;
            }
        }
        free.push((first, reference));
        let clock = Instant::now();
        query(&other).await.unwrap();
        evict.push((clock.elapsed().as_secs_f64() * 1e3, reference));
    }
    wide.close().await;
    narrow.close().await;
    [
        Row::of("cold acquire, a slot is free / raw connect", "ms", Goal::AtMost(1.1), &free[5..]),
        Row::of("cold acquire, one is closed first / raw", "ms", Goal::AtMost(1.4), &evict[5..]),
    ]
}

/// Queries of 15 tenants, whose connections all fit in the pool, so none is opened during the measurement. Compared
/// with a pool for each tenant, and with a connection for each task.
async fn measure_hot(server: &TestServer, hosts: &Hosts) -> [Row; 3] {
    let (zipf, mut pools, mut in_turns, mut without_turns) = (Zipf::uniform(15), vec![], vec![], vec![]);
    println!("15 tenants, {TASKS} tasks:");
    // Seven rounds, because the rate of five seconds varies by a quarter from one round to the next.
    for _ in 0..7 {
        let theirs = run_pools("a PgPool for each tenant", create_pools(server, 15), &zipf, true).await;
        let ours = run_tenantry(hosts, &zipf).await;
        pools.push((ours.rate, theirs.rate));
        in_turns.push((ours.rate, run_dedicated(server, 15, true).await.rate));
        without_turns.push((ours.rate, run_dedicated(server, 15, false).await.rate));
    }
    [
        Row::of("15 hot tenants: ours / a PgPool for each", "/s", Goal::AtLeast(2.0), &pools),
        Row::of("15 hot tenants: ours / own connections", "/s", Goal::AtLeast(0.9), &in_turns),
        Row::of("15 hot tenants: ours / own, no turns", "/s", Goal::AtLeast(0.0), &without_turns),
    ]
}

/// How many connections per second the machine can open, with four tasks.
async fn measure_connect_rate(server: &TestServer) -> f64 {
    let zipf = Zipf::uniform(TENANTS);
    let targets: Arc<Vec<_>> = Arc::new((0..TENANTS).map(|n| options(server, n)).collect());
    let connect = move |n: usize| {
        let target = targets[n].clone();
        async move {
            let mut session = target.connect().await?;
            sqlx::query("SELECT 1").fetch_one(&mut session).await?;
            session.close().await
        }
    };
    run(4, &zipf, WARM / 4, COUNTED / 2, connect).await.rate
}

/// Queries of 300 tenants, which are more than the pool has connections.
async fn measure_zipf(server: &TestServer, hosts: &Hosts) -> Vec<Row> {
    let zipf = Zipf::new(TENANTS);
    let optimum = zipf.miss_ratio(BUDGET as usize);
    println!(
        "{TENANTS} tenants by Zipf's law, {TASKS} tasks, {BUDGET} connections; optimum: {optimum:.3} connects/query:"
    );
    let (mut limit, mut misses, mut session, mut transaction) = (vec![], vec![], vec![], vec![]);
    for _ in 0..3 {
        let capacity = measure_connect_rate(server).await / optimum;
        println!("  {:28} {capacity:>8.0} ops/s", "limit: connect rate / optimum");
        let (ours, missed) = run_tenantry_with_misses(hosts, &zipf).await;
        limit.push((ours.rate, capacity));
        misses.push((missed, optimum));
        match Bouncer::start(server, "session", BUDGET) {
            Some(bouncer) => {
                let pools = bouncer_pools(&bouncer, server, TENANTS, true);
                let peer = run_pools("PgBouncer, session", pools, &zipf, false).await;
                session.push((ours.rate, peer.rate));
            }
            None => println!("  !!! SKIPPED: PgBouncer is not installed !!!"),
        }
        if let Some(bouncer) = Bouncer::start(server, "transaction", BUDGET) {
            let pools = bouncer_pools(&bouncer, server, TENANTS, false);
            let peer = run_pools("PgBouncer, transaction", pools, &zipf, false).await;
            transaction.push((ours.rate, peer.rate));
        }
        run_pools("a PgPool for each tenant", create_pools(server, TENANTS), &zipf, true).await;
    }
    let mut rows = vec![Row::of("Zipf: ours / the limit", "/s", Goal::AtLeast(0.85), &limit)];
    rows.push(Row::of("Zipf: queries that connect / optimum", "  ", Goal::AtMost(1.12), &misses));
    if !session.is_empty() {
        rows.push(Row::of("Zipf: ours / PgBouncer, session mode", "/s", Goal::AtLeast(3.5), &session));
        rows.push(Row::of("Zipf: ours / PgBouncer, transaction mode", "/s", Goal::AtLeast(3.5), &transaction));
    }
    rows
}
