//! One budget for all tenants, against its limits and against what else there is: a pool for each tenant, PgBouncer.
//! `-- --only zipf` (or `hit`, `idle`, `cold`, `hot`, `noisy`) runs one part.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark talks, and may panic")]
use pool::bouncer::Bouncer;
use pool::hosts::{Hosts, options, slug};
use pool::load::{Load, Zipf, run};
use ratio::{Goal, Row};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tenantry::resolver::PooledResolver;
use tenantry::testing::TestServer;
use tenantry::{ConnectionResolver, TenantPool, TenantRef, sqlx};

#[path = "pool/parts.rs"]
mod pool;
mod ratio;

const TENANTS: usize = 300;
const BUDGET: u32 = 90;
const TASKS: usize = 64;
const WARM: Duration = Duration::from_secs(2);
const COUNTED: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let only = std::env::args().skip_while(|a| a != "--only").nth(1);
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let builder = TestServer::builder().setting("max_connections", "100");
    let server: &'static TestServer = Box::leak(Box::new(builder.start().await.unwrap()));
    println!("{}", server.describe());
    let hosts = Hosts::new(server, TENANTS).await;
    let mut rows = vec![];
    if wanted("hit") {
        rows.push(hit(&hosts).await);
    }
    if wanted("idle") {
        rows.push(idle(server).await);
    }
    if wanted("cold") {
        rows.extend(cold(server, &hosts).await);
    }
    if wanted("hot") {
        rows.push(hot(server, &hosts).await);
    }
    if wanted("noisy") {
        rows.push(noisy(server, &hosts).await);
    }
    if wanted("zipf") {
        rows.extend(zipf(server, &hosts).await);
    }
    ratio::report_rows("pool", &rows).unwrap();
}

fn resolver(hosts: &Hosts, budget: u32) -> PooledResolver {
    let builder = PooledResolver::builder(hosts.clone(), hosts.clone());
    builder.max_connections(budget).fresh_for(Duration::from_secs(3600)).build()
}

/// What is cached, against a map of `Arc`s.
async fn hit(hosts: &Hosts) -> Row {
    const TIMES: u32 = 200_000;
    let resolver = resolver(hosts, BUDGET);
    let names: Vec<String> = (0..TENANTS).map(slug).collect();
    let mut plain = HashMap::new();
    for name in &names {
        plain.insert(name.clone(), Arc::new(resolver.resolve(name.as_str().into()).await.unwrap()));
    }
    let mut pairs = vec![];
    for _ in 0..31 {
        let clock = Instant::now();
        for n in 0..TIMES as usize {
            black_box(resolver.cached(&TenantRef::from(names[n % TENANTS].as_str())));
        }
        let ours = clock.elapsed() / TIMES;
        let clock = Instant::now();
        for n in 0..TIMES as usize {
            black_box(plain.get(names[n % TENANTS].as_str()).cloned());
        }
        pairs.push((ours.as_nanos() as f64, (clock.elapsed() / TIMES).as_nanos() as f64));
    }
    Row::of("resolve hit / a map and an Arc clone", "ns", Goal::AtMost(2.5), &pairs)
}

/// Resident memory for each of many tenants that were resolved and have no connection.
async fn idle(server: &TestServer) -> Row {
    const MANY: usize = 10_000;
    let hosts = Hosts::named(server, MANY);
    let resolver = resolver(&hosts, BUDGET);
    resolver.resolve(slug(0).as_str().into()).await.unwrap();
    let before = resident();
    for n in 1..MANY {
        resolver.resolve(slug(n).as_str().into()).await.unwrap();
    }
    let bytes = (resident() - before) / MANY as f64;
    Row::of("an idle tenant, bytes", "B", Goal::AtMost(2048.0), &[(bytes, 1.0)])
}

fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
}

/// A tenant beside one that is asked by 256 tasks, against the same two with five connections each.
async fn noisy(server: &TestServer, hosts: &Hosts) -> Row {
    let (one, mut pairs) = (Zipf::uniform(1), vec![]);
    println!("a tenant beside a noisy one:");
    for _ in 0..3 {
        let dedicated = pools(server, 2);
        let (hog, meek) = (dedicated[0].clone(), dedicated[1].clone());
        let through = |pool: PgPool| {
            move |_| {
                let pool = pool.clone();
                async move { sqlx::query("SELECT 1").fetch_one(&pool).await.map(drop) }
            }
        };
        let noise = tokio::spawn(async move { run(256, &Zipf::uniform(1), WARM, COUNTED, through(hog)).await });
        let reference = run(4, &one, WARM, COUNTED, through(meek)).await;
        drop(noise.await);
        tell("dedicated connections", &reference);
        let resolver = resolver(hosts, BUDGET);
        let hog = resolver.resolve(slug(0).as_str().into()).await.unwrap();
        let meek = resolver.resolve(slug(1).as_str().into()).await.unwrap();
        let through = |db: TenantPool| {
            move |_| {
                let db = db.clone();
                async move { ask(&db).await }
            }
        };
        let noise = tokio::spawn(async move { run(256, &Zipf::uniform(1), WARM, COUNTED, through(hog)).await });
        let ours = run(4, &one, WARM, COUNTED, through(meek)).await;
        drop(noise.await);
        tell("ours", &ours);
        resolver.close().await;
        pairs.push((ours.p99.as_secs_f64() * 1e3, reference.p99.as_secs_f64() * 1e3));
    }
    Row::of("p99 beside a noisy tenant / dedicated", "ms", Goal::AtMost(1.25), &pairs)
}

async fn ask(db: &TenantPool) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT 1").fetch_one(db).await.map(drop)
}

/// A tenant without a connection: while slots are free, and while another one's must be closed first.
async fn cold(server: &TestServer, hosts: &Hosts) -> [Row; 2] {
    let (mut free, mut steal) = (vec![], vec![]);
    let wide = resolver(hosts, 99);
    let narrow = resolver(hosts, 1);
    for n in 0..60 {
        let (raw, other) = (options(server, 100 + n), slug(200 + n));
        let db = wide.resolve(slug(n).as_str().into()).await.unwrap();
        let other = narrow.resolve(other.as_str().into()).await.unwrap();
        // Whoever comes second meets a server that still ends the session before: each is second as often.
        let (mut reference, mut first) = (0.0, 0.0);
        for of_raw in [n % 2 == 0, n % 2 == 1] {
            let clock = Instant::now();
            if of_raw {
                raw.connect().await.unwrap().close().await.unwrap();
                reference = clock.elapsed().as_secs_f64() * 1e3;
            } else {
                drop(db.acquire().await.unwrap());
                first = clock.elapsed().as_secs_f64() * 1e3;
            }
        }
        free.push((first, reference));
        let clock = Instant::now();
        ask(&other).await.unwrap();
        steal.push((clock.elapsed().as_secs_f64() * 1e3, reference));
    }
    wide.close().await;
    narrow.close().await;
    [
        Row::of("cold acquire, a slot is free / raw connect", "ms", Goal::AtMost(1.1), &free[5..]),
        Row::of("cold acquire, one is closed first / raw", "ms", Goal::AtMost(1.4), &steal[5..]),
    ]
}

fn pools(server: &TestServer, tenants: usize) -> Arc<Vec<PgPool>> {
    let pool = |n| {
        PgPoolOptions::new()
            .max_connections(5)
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy_with(options(server, n))
    };
    Arc::new((0..tenants).map(pool).collect())
}

async fn ours(hosts: &Hosts, zipf: &Zipf) -> Load {
    ours_with_misses(hosts, zipf).await.0
}

/// With the part of requests for which a connection was opened.
async fn ours_with_misses(hosts: &Hosts, zipf: &Zipf) -> (Load, f64) {
    let resolver = resolver(hosts, BUDGET);
    let at = resolver.clone();
    let load = run(TASKS, zipf, WARM, COUNTED, move |n| {
        let resolver = at.clone();
        async move {
            let db = match resolver.cached(&TenantRef::from(slug(n).as_str())) {
                Some(db) => db,
                None => {
                    resolver.resolve(slug(n).as_str().into()).await.map_err(|e| sqlx::Error::Configuration(e.into()))?
                }
            };
            ask(&db).await
        }
    })
    .await;
    tell("ours", &load);
    let (opened, asked) = resolver.stats().iter().fold((0, 0), |(o, a), (_, s)| (o + s.connects, a + s.checkouts));
    resolver.close().await;
    (load, opened as f64 / asked.max(1) as f64)
}

async fn theirs(name: &str, pools: Arc<Vec<PgPool>>, zipf: &Zipf, persistent: bool) -> Load {
    let at = pools.clone();
    let load = run(TASKS, zipf, WARM, COUNTED, move |n| {
        let pool = at[n].clone();
        async move { sqlx::query("SELECT 1").persistent(persistent).fetch_one(&pool).await.map(drop) }
    })
    .await;
    tell(name, &load);
    for pool in pools.iter() {
        let _ = tokio::time::timeout(Duration::from_millis(300), pool.close()).await;
    }
    load
}

fn tell(name: &str, load: &Load) {
    println!(
        "  {name:28} {:>8.0} ops/s   p50 {:>9.3?}   p99 {:>9.3?}   {} errors",
        load.rate, load.p50, load.p99, load.errors
    );
}

/// Fifteen tenants that all fit: nothing is opened.
async fn hot(server: &TestServer, hosts: &Hosts) -> Row {
    let (zipf, mut pairs) = (Zipf::uniform(15), vec![]);
    println!("15 tenants, {TASKS} tasks:");
    for _ in 0..3 {
        let theirs = theirs("a PgPool for each tenant", pools(server, 15), &zipf, true).await;
        pairs.push((ours(hosts, &zipf).await.rate, theirs.rate));
    }
    Row::of("15 hot tenants: ours / a PgPool for each", "/s", Goal::AtLeast(2.0), &pairs)
}

/// How many connections the machine can make in a second, two at a time.
async fn connects(server: &TestServer) -> f64 {
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

/// More tenants than connections.
async fn zipf(server: &TestServer, hosts: &Hosts) -> Vec<Row> {
    let zipf = Zipf::new(TENANTS);
    let optimum = zipf.misses(BUDGET as usize);
    println!(
        "{TENANTS} tenants by Zipf's law, {TASKS} tasks, {BUDGET} connections; at best {optimum:.3} of requests miss:"
    );
    let (mut limit, mut misses, mut session, mut transaction) = (vec![], vec![], vec![], vec![]);
    for _ in 0..3 {
        let capacity = connects(server).await / optimum;
        println!("  {:28} {capacity:>8.0} ops/s", "limit: connects / misses");
        let (ours, missed) = ours_with_misses(hosts, &zipf).await;
        limit.push((ours.rate, capacity));
        misses.push((missed, optimum));
        match Bouncer::start(server, "session", BUDGET) {
            Some(bouncer) => {
                let through = |n| {
                    let options = bouncer.options(options(server, n));
                    PgPoolOptions::new()
                        .max_connections(5)
                        .test_before_acquire(false)
                        .idle_timeout(Duration::from_millis(500))
                        .acquire_timeout(Duration::from_secs(5))
                        .connect_lazy_with(options)
                };
                let peer =
                    theirs("PgBouncer, session", Arc::new((0..TENANTS).map(through).collect()), &zipf, false).await;
                session.push((ours.rate, peer.rate));
            }
            None => println!("  !!! PgBouncer is not installed: left out !!!"),
        }
        if let Some(bouncer) = Bouncer::start(server, "transaction", BUDGET) {
            let through = |n| {
                PgPoolOptions::new()
                    .max_connections(5)
                    .test_before_acquire(false)
                    .acquire_timeout(Duration::from_secs(5))
                    .connect_lazy_with(bouncer.options(options(server, n)))
            };
            let peer =
                theirs("PgBouncer, transaction", Arc::new((0..TENANTS).map(through).collect()), &zipf, false).await;
            transaction.push((ours.rate, peer.rate));
        }
        theirs("a PgPool for each tenant", pools(server, TENANTS), &zipf, true).await;
    }
    let mut rows = vec![Row::of("Zipf: ours / the limit", "/s", Goal::AtLeast(0.85), &limit)];
    rows.push(Row::of("Zipf: requests that open one / at best", "  ", Goal::AtMost(1.12), &misses));
    if !session.is_empty() {
        rows.push(Row::of("Zipf: ours / PgBouncer, session mode", "/s", Goal::AtLeast(3.5), &session));
        rows.push(Row::of("Zipf: ours / PgBouncer, transaction mode", "/s", Goal::AtLeast(3.5), &transaction));
    }
    rows
}
