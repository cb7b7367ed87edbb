//! One budget for all tenants, against its limits and against what else there is: a pool for each tenant, PgBouncer.
//! `-- --only zipf` (or `hit`, `checkout`, `discard`, `idle`, `cold`, `hot`, `noisy`) runs one part.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results and panics on errors")]
use pool::bouncer::Bouncer;
use pool::hosts::{Hosts, options, slug};
use pool::load::{Zipf, run};
use pool::peers::{
    BUDGET, COUNTED, TASKS, WARM, ask, ask_by_name, bounced, ours, ours_with_misses, pools, resident, resolver, tell,
    theirs,
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

#[path = "pool/parts.rs"]
mod pool;
mod ratio;

const TENANTS: usize = 300;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let only = std::env::args().skip_while(|a| a != "--only").nth(1);
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let builder = TestServer::builder().setting("max_connections", "100");
    let server: &'static TestServer = Box::leak(Box::new(builder.start().await.unwrap()));
    println!("{}", server.describe());
    let databases = match only.as_deref() {
        Some("hit" | "idle") => 0,
        Some("checkout") => 1,
        Some("discard" | "hot" | "noisy") => 15,
        _ => TENANTS,
    };
    Hosts::new(server, databases).await;
    let hosts = Hosts::named(server, TENANTS);
    let mut rows = vec![];
    if wanted("hit") {
        rows.push(hit(&hosts).await);
    }
    if wanted("checkout") {
        rows.push(checkout(&hosts).await);
    }
    if wanted("discard") {
        rows.push(discard(&hosts).await);
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

/// What is cached, against a map of `Arc`s; in short looks, as [`checkout`].
async fn hit(hosts: &Hosts) -> Row {
    const TIMES: u32 = 6_000;
    let resolver = resolver(hosts, BUDGET);
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

/// What a call does before and after its statement while a connection is idle, in nanoseconds. Many short looks: on a
/// machine that does something else too, a long one measures that.
async fn checkout(hosts: &Hosts) -> Row {
    const TIMES: u32 = 1000;
    let resolver = resolver(hosts, BUDGET);
    let db = resolver.resolve(slug(0).as_str().into()).await.unwrap();
    let mut figures = vec![];
    for _ in 0..1001 {
        ask(&db).await.unwrap();
        let clock = Instant::now();
        for _ in 0..TIMES {
            db.acquire_and_release().await.unwrap();
        }
        figures.push((clock.elapsed().as_nanos() as f64 / f64::from(TIMES), 1.0));
    }
    let opened: u64 = resolver.stats().iter().map(|(_, stats)| stats.connects).sum();
    assert_eq!(opened, 1, "it was idle all the time");
    resolver.close().await;
    Row::of("checkout and release, no I/O: nanoseconds", "ns", Goal::AtMost(150.0), &figures)
}

/// Tenants that all fit, with `DISCARD ALL` after each query and without.
async fn discard(hosts: &Hosts) -> Row {
    let (zipf, mut pairs) = (Zipf::uniform(15), vec![]);
    println!("15 tenants, {TASKS} tasks:");
    for _ in 0..5 {
        let mut rates = vec![];
        for (name, yes) in [("with discard_on_release", true), ("without", false)] {
            let builder = PooledResolver::builder(hosts.clone(), hosts.clone());
            let resolver = builder.fresh_for(Duration::from_secs(3600)).discard_on_release(yes).build();
            let at = resolver.clone();
            let load = run(TASKS, &zipf, WARM / 2, COUNTED / 2, move |n| {
                let resolver = at.clone();
                async move { ask_by_name(&resolver, n).await }
            })
            .await;
            tell(name, &load);
            resolver.close().await;
            rates.push(load.rate);
        }
        pairs.push((rates[0], rates[1]));
    }
    Row::of("queries with DISCARD ALL / without", "/s", Goal::AtLeast(0.0), &pairs)
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

/// Fifteen tenants that all fit: nothing is opened.
async fn hot(server: &TestServer, hosts: &Hosts) -> Row {
    let (zipf, mut pairs) = (Zipf::uniform(15), vec![]);
    println!("15 tenants, {TASKS} tasks:");
    // Five seconds of 64 tasks on two cores differ by a quarter from one look to the next.
    for _ in 0..7 {
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
                let pools = bounced(&bouncer, server, TENANTS, true);
                let peer = theirs("PgBouncer, session", pools, &zipf, false).await;
                session.push((ours.rate, peer.rate));
            }
            None => println!("  !!! PgBouncer is not installed: left out !!!"),
        }
        if let Some(bouncer) = Bouncer::start(server, "transaction", BUDGET) {
            let pools = bounced(&bouncer, server, TENANTS, false);
            let peer = theirs("PgBouncer, transaction", pools, &zipf, false).await;
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
