//! The same load on ours and on what else there is.
use super::bouncer::Bouncer;
use super::hosts::{Hosts, options, slug};
use super::load::{Load, Zipf, run};
use sqlx::postgres::{PgPool, PgPoolOptions};
use std::sync::Arc;
use std::time::Duration;
use tenantry::resolver::PooledResolver;
use tenantry::testing::TestServer;
use tenantry::{ConnectionResolver, TenantPool, TenantRef, sqlx};

pub(crate) const BUDGET: u32 = 90;
pub(crate) const TASKS: usize = 64;
pub(crate) const WARM: Duration = Duration::from_secs(2);
pub(crate) const COUNTED: Duration = Duration::from_secs(5);

pub(crate) fn resolver(hosts: &Hosts, budget: u32) -> PooledResolver {
    let builder = PooledResolver::builder(hosts.clone(), hosts.clone());
    builder.max_connections(budget).fresh_for(Duration::from_secs(3600)).build()
}

pub(crate) async fn ask(db: &TenantPool) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT 1").fetch_one(db).await.map(drop)
}

/// As a host asks: what is cached, else what resolves.
pub(crate) async fn ask_by_name(resolver: &PooledResolver, n: usize) -> Result<(), sqlx::Error> {
    let slug = slug(n);
    let db = match resolver.cached(&TenantRef::from(slug.as_str())) {
        Some(db) => db,
        None => resolver.resolve(slug.as_str().into()).await.map_err(|e| sqlx::Error::Configuration(e.into()))?,
    };
    ask(&db).await
}

pub(crate) async fn ours(hosts: &Hosts, zipf: &Zipf) -> Load {
    ours_with_misses(hosts, zipf).await.0
}

/// With the part of requests for which a connection was opened, once it is known who asks how often.
pub(crate) async fn ours_with_misses(hosts: &Hosts, zipf: &Zipf) -> (Load, f64) {
    let resolver = resolver(hosts, BUDGET);
    let at = resolver.clone();
    let load = run(TASKS, zipf, WARM, COUNTED, move |n| {
        let resolver = at.clone();
        async move { ask_by_name(&resolver, n).await }
    });
    let warm = async {
        tokio::time::sleep(WARM).await;
        opened_and_asked(&resolver)
    };
    let (load, before) = tokio::join!(load, warm);
    tell("ours", &load);
    let after = opened_and_asked(&resolver);
    resolver.close().await;
    (load, (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64)
}

fn opened_and_asked(resolver: &PooledResolver) -> (u64, u64) {
    resolver.stats().iter().fold((0, 0), |(o, a), (_, s)| (o + s.connects, a + s.checkouts))
}

pub(crate) fn pools(server: &TestServer, tenants: usize) -> Arc<Vec<PgPool>> {
    let pool = |n| {
        PgPoolOptions::new()
            .max_connections(5)
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy_with(options(server, n))
    };
    Arc::new((0..tenants).map(pool).collect())
}

/// Pools to PgBouncer. In session mode a connection to it holds one of the server's: they must go when they are idle.
pub(crate) fn bounced(bouncer: &Bouncer, server: &TestServer, tenants: usize, session: bool) -> Arc<Vec<PgPool>> {
    let pool = |n| {
        PgPoolOptions::new()
            .max_connections(5)
            .test_before_acquire(false)
            .idle_timeout(session.then_some(Duration::from_millis(500)))
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy_with(bouncer.options(options(server, n)))
    };
    Arc::new((0..tenants).map(pool).collect())
}

pub(crate) async fn theirs(name: &str, pools: Arc<Vec<PgPool>>, zipf: &Zipf, persistent: bool) -> Load {
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

/// Memory of this process, in bytes.
pub(crate) fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
}

pub(crate) fn tell(name: &str, load: &Load) {
    println!(
        "  {name:28} {:>8.0} ops/s   p50 {:>9.3?}   p99 {:>9.3?}   {} errors",
        load.rate, load.p50, load.p99, load.errors
    );
}
